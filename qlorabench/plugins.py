"""Attacks, defenses and data sources by name, from entry points or a file; imported only when used."""

from __future__ import annotations

import ast
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
            found = getattr(_module_of((self.base / file[1]).resolve()), file[2], None)
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
            return Origin(module=str((self.base / file[1]).resolve()))
        return _origin(self._entry(name))

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


def plugin_version(cls: type, *, origin: Origin) -> str:
    """Return what changes when the plug-in's code does: distribution, class ``version``, hash of its source.

    The modules of its folder that it imports by relative imports, and those that they import, count as its code.
    """
    try:
        files = _sources(Path(inspect.getfile(cls)))
        source = digest({path.name: file_sha256(path) for path in files}, length=12)
    except (OSError, TypeError) as error:
        raise UserError(f"{cls.__qualname__} ({origin}) has no source file to hash: {error}") from error
    return f"{origin.distribution or 'file'}-{origin.version or 0}/{getattr(cls, 'version', 0)}/{source}"


def _sources(file: Path) -> list[Path]:
    """Return ``file`` and what it imports from its own folder, directly or not, sorted."""
    found: set[Path] = set()
    open_ = {file}
    while open_:
        found |= open_
        open_ = {beside for path in open_ for beside in _imported(path)} - found
    return sorted(found)


def _imported(file: Path) -> Iterator[Path]:
    """Yield the files that ``from .module import name`` and ``from . import module`` in ``file`` name."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from (path for name in names if (path := file.parent / f"{name}.py").is_file())


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # slow to import, and `--help` needs none of it

    return tuple(entry_points(group=f"qlorabench.{group}"))


def _origin(entry: EntryPoint) -> Origin:
    return Origin(entry.module, *((entry.dist.name, entry.dist.version) if entry.dist else ()))


@cache
def _module_of(path: Path) -> ModuleType:
    """Import a file under a name of its own, once per absolute path."""
    if not path.is_file():
        raise UserError(f"plug-in file not found: {path}")
    name = f"qlorabench_file_{digest(str(path))}"
    with _importing(f"{path} cannot be imported"):
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importing(what: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserError(f"{what}: {traceback.format_exception_only(error)[-1].strip()}") from error
