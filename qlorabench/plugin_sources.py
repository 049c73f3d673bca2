"""Which source files a plug-in is made of: its own module, and what it imports of the same package.

Files are found by reading import statements, so that nothing is executed for it. What is imported by a computed name
(``importlib.import_module``), and what lies outside of the plug-in's own top package, is not followed: the version of
the distribution stands for the latter.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, all_suffixes
from pathlib import Path

from .hashing import digest

SHARED = ("qlorabench.attacks", "qlorabench.defenses")
"""Packages whose modules plug-ins may build on. The rest of the harness is hashed for every key as a whole."""
_FILES = "qlorabench_file_"
"""Starts the name of the made-up package that stands for a folder of plug-in files."""


def file_module(path: Path) -> str:
    """Return the name under which a plug-in file is imported; its package is there to be imported from afterwards.

    The file's `import_root` is made a package under a name of its own. So relative imports work, and files of one name
    in two folders do not meet.
    """
    root = import_root(path)
    top = _FILES + digest(str(root))
    if top not in sys.modules:
        spec = ModuleSpec(top, None, is_package=True)
        spec.submodule_search_locations = [str(root)]
        sys.modules[top] = importlib.util.module_from_spec(spec)
    # a dot in a file's name would read as a package
    inside = [part.replace(".", "_") for part in path.relative_to(root).with_suffix("").parts]
    return ".".join([top, *inside]).removesuffix(".__init__")


def import_root(path: Path) -> Path:
    """Return the folder above the topmost package that a file lies in; its own folder, where that is no package."""
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    return root


def sources(start: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of the modules in ``start`` and of what they import, directly or not, by module.

    A package's ``__init__.py`` counts where anything below it is imported, as Python runs it then. Modules of plug-in
    files are named relative to their folder, so that the names do not depend on where it lies.
    """
    homes = _homes(start)
    waiting = set(start)
    found: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        path = start.get(module) or _locate(module, homes)
        if path is not None and module not in found:
            found[module] = path
            named = {module, *_Module(module, path, homes).imports()}
            waiting |= {parent for name in named for parent in _with_parents(name)}
    return {_said(module): path for module, path in sorted(found.items())}


def _said(module: str) -> str:
    return module.partition(".")[2] if module.startswith(_FILES) else module


def _homes(modules: Iterable[str]) -> dict[str, list[Path]]:
    """Return the packages whose modules count, and where each lies: paths without a suffix."""
    homes: dict[str, list[Path]] = {}
    for module in (*modules, *SHARED):
        parts = module.split(".")
        name = ".".join(parts[: 2 if parts[0] == "qlorabench" else 1])
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module that is loaded and says nothing of where from, as __main__ may be
            continue
        if spec and spec.submodule_search_locations is not None:
            homes[name] = [Path(folder) for folder in spec.submodule_search_locations]
        elif spec and spec.origin:
            homes[name] = [Path(spec.origin).parent / name.rpartition(".")[2]]
    return homes


def _locate(module: str, homes: Mapping[str, list[Path]]) -> Path | None:
    """Return the file of a module, else ``None``: it is another package's, or no module but a name inside of one."""
    name = next((home for home in homes if f"{module}.".startswith(f"{home}.")), None)
    if name is None or (module == name and module.startswith(_FILES)):
        return None
    inside = module.removeprefix(name).split(".")[1:]
    for folder in homes[name]:
        target = folder.joinpath(*inside)
        files = [target / "__init__.py", *(target.with_name(target.name + suffix) for suffix in all_suffixes())]
        for file in files:
            if file.is_file():
                return file
    return None


def _with_parents(module: str) -> list[str]:
    """Return ``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


@dataclass(frozen=True)
class _Module:
    name: str
    path: Path
    homes: Mapping[str, list[Path]]

    @property
    def package(self) -> list[str]:
        """Parts of the name of the package that relative imports start from."""
        parts = self.name.split(".")
        return parts if self.path.stem == "__init__" else parts[:-1]

    def imports(self) -> Iterator[str]:
        """Yield every name that may be a module among what is imported, anywhere in the file."""
        if self.path.suffix != ".py":  # compiled
            return
        for node in _statements(self.path.read_bytes()):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._absolute(alias.name)
            else:
                for origin in self._origins(node):
                    yield origin
                    yield from self._members(origin, node)

    def _absolute(self, name: str) -> Iterator[str]:
        """Yield a name as it stands, and as what lies beside a plug-in file, should that be on Python's path."""
        yield name
        if self.name.startswith(_FILES):
            for package in dict.fromkeys((self.package[0], ".".join(self.package))):
                yield f"{package}.{name}"

    def _origins(self, node: ast.ImportFrom) -> Iterator[str]:
        """Yield the modules that the ``x`` of ``from x import y`` may mean."""
        if node.level == 0:
            yield from self._absolute(node.module or "")
        elif node.level <= len(self.package):
            above = self.package[: len(self.package) - node.level + 1]
            yield ".".join([*above, node.module] if node.module else above)

    def _members(self, origin: str, node: ast.ImportFrom) -> Iterator[str]:
        """Yield the ``x.y`` of ``from x import y``; a star takes modules that ``__all__`` lists, which may be any."""
        names = [alias.name for alias in node.names]
        if "*" in names:
            path = _locate(origin, self.homes)
            beside = path.parent.iterdir() if path and path.stem == "__init__" else ()
            names = sorted({file.name.partition(".")[0] for file in beside} - {"__init__", "__pycache__"})
        yield from (f"{origin}.{name}" for name in names)


@lru_cache(maxsize=1024)
def _statements(source: bytes) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Return the import statements of a file; the attacks of a suite share most of theirs."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # what Python cannot read imports nothing
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
