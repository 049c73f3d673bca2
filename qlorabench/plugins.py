"""Attacks, defenses and data sources by name, from entry points or a file; imported only when used."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from .errors import UserError, nearest
from .hashing import digest, file_sha256
from .plugin_sources import file_module, import_root, sources

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["attacks", "defenses", "tasks"]
_FILE = re.compile(r"(.+\.py):(\w+)")


@dataclass(frozen=True)
class Origin:
    """Where a plug-in comes from: its module in a distribution, or the path of a file and no distribution."""

    module: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.module})" if self.distribution else self.module


@dataclass(frozen=True)
class Registry:
    """The plug-ins of one group: a short list of entry points, and the folder that files are relative to."""

    group: Group
    entries: tuple[EntryPoint, ...]
    base: Path

    def names(self) -> list[str]:
        """Return the registered names, sorted; imports nothing."""
        return sorted({entry.name for entry in self.entries})

    def load(self, name: str) -> type:
        """Import and return the class ``name`` (or ``path/to/file.py:ClassName``)."""
        where = f"{self.group[:-1]} '{name}'"
        if file := _FILE.fullmatch(name):
            found = getattr(_module_of(self._path(file[1])), file[2], None)
        else:
            entry = self._entry(name)
            where += f" of {_origin(entry)}"
            with _importing(f"{where} cannot be imported"):
                found = entry.load()
        if not isinstance(found, type):
            raise UserError(f"{where}: " + ("the file has no such class" if found is None else "not a class"))
        return found

    def origin(self, name: str) -> Origin:
        """Return where ``name`` comes from; imports nothing."""
        if file := _FILE.fullmatch(name):
            return Origin(module=str(self._path(file[1])))
        return _origin(self._entry(name))

    def _path(self, file: str) -> Path:
        path = self.base / file
        try:
            path = path.resolve()
            there = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a NUL
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"plug-in file {str(path)[:200]!r} cannot be looked up: {why}") from error
        if not there:
            raise UserError(f"plug-in file not found: {path}")
        return path

    def _entry(self, name: str) -> EntryPoint:
        names, what = self.names(), f"{self.group[:-1]} '{name}'"
        found = [entry for entry in self.entries if entry.name == name]
        if not found:
            raise UserError(f"unknown {what}.{nearest(name, names)} Known: {', '.join(names) or 'none'}")
        if len(found) > 1:
            both = " and ".join(sorted(str(_origin(entry)) for entry in found))
            raise UserError(f"{what} is registered by {both}; uninstall one of them")
        return found[0]


def registry(group: Group, *, base: Path | None = None, entry_points: Iterable[EntryPoint] | None = None) -> Registry:
    """Return the registry of ``group``, of what is installed or of the given ``entry_points``."""
    return Registry(group, tuple(_installed(group) if entry_points is None else entry_points), base or Path())


def plugin_file(name: str, *, base: Path) -> Path | None:
    """Return the file that ``path/to/file.py:ClassName`` names, relative to ``base``; ``None`` for other names."""
    file = _FILE.fullmatch(name)
    return (base / file[1]).resolve() if file else None


def plugin_version(cls: type, *, origin: Origin) -> str:
    """Return what changes when the plug-in's code does: distribution, class ``version``, hash of its source.

    The modules of its own package that it imports, and those that they import, count as its code; see `sources`.
    """
    try:
        start = {cls.__module__: Path(inspect.getfile(cls))}  # raises where there is none, as for a class of C
        if (file := Path(origin.module)).is_absolute():  # it may only hand on a class of another file
            start[file_module(file)] = file
        code = {module: file_sha256(path) for module, path in sources(start).items()}
    except (OSError, TypeError) as error:
        raise UserError(f"{cls.__qualname__} ({origin}) has no source file to hash: {error}") from error
    version = getattr(cls, "version", 0)
    return f"{origin.distribution or 'file'}-{origin.version or 0}/{version}/{digest(code, length=12)}"


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # slow to import, and `--help` needs none of it

    return tuple(entry_points(group=f"qlorabench.{group}"))


def _origin(entry: EntryPoint) -> Origin:
    return Origin(entry.module, *((entry.dist.name, entry.dist.version) if entry.dist else ()))


@cache
def _module_of(path: Path) -> ModuleType:
    """Import a file, once per absolute path, as a module of the package that its folder is (see `file_module`)."""
    name = file_module(path)
    with _importing(f"{path} cannot be imported", beside=path):
        importlib.invalidate_caches()  # the folder may have changed since an earlier plug-in was read from it
        package = importlib.import_module(name if path.stem == "__init__" else name.rpartition(".")[0])
        if path.stem == "__init__":
            return package
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]  # so that the next try starts anew
            raise
    return module


@contextmanager
def _importing(what: str, *, beside: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        said = traceback.format_exception_only(error)[-1].strip()
        hint = _relative_hint(error, beside) if beside and isinstance(error, ModuleNotFoundError) else ""
        raise UserError(f"{what}: {said}{hint}") from error


def _relative_hint(error: ModuleNotFoundError, path: Path) -> str:
    """Say how to import what lies beside a plug-in file, where that is what was not found."""
    name = (error.name or "").partition(".")[0]
    if not name or not any(
        (folder / found).exists() for folder in (path.parent, import_root(path)) for found in (name, f"{name}.py")
    ):
        return ""
    return (
        f". '{name}' lies beside the file or above it, and is not on Python's path: import it relatively "
        f"('from .{name} import ...'), or install it"
    )
