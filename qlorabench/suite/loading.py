"""Reads a suite file, finds every problem in it at once, and resolves what it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qlorabench.errors import UserError, nearest
from qlorabench.suite.parts import Parts, parts_of, salvage
from qlorabench.suite.plan import count_cells
from qlorabench.suite.resolve import ResolvedSuite
from qlorabench.suite.resolver import Resolver
from qlorabench.suite.schema import SuiteConfig
from qlorabench.suite.validation import Checker
from qlorabench.suite.yaml_marks import load_marked

SHIPPED = "qlorabench.suites"
MOST_BYTES = 256 * 1024
"""Size of a suite file at most: a hundred times what the suites that ship take."""
MOST_CELLS = 100_000
"""Cells of a plan at most: a day's work, were each done in a second."""


@dataclass(frozen=True)
class Examined:
    """A suite file with all that was found wrong in it so far."""

    file: Path
    checker: Checker
    parts: Parts
    """What can be looked at further, whatever else is wrong."""
    suite: ResolvedSuite | None
    """The suite, where its shape is right."""

    def finish(self) -> ResolvedSuite:
        """Return the suite; raises SuiteError with every problem at once."""
        self.checker.finish(file=str(self.file))
        if self.suite is None:
            raise AssertionError("a suite that does not validate has problems")
        return self.suite


def find_suite(name: str) -> Path:
    """Return the file of a suite given as a path or by the name of one that ships; raises UserError."""
    from importlib.resources import files

    path = Path(name)
    try:
        is_file, exists = path.is_file(), path.exists()
    except OSError as error:  # a name too long, links in a circle
        raise UserError(f"no suite {name[:200]!r}: {error.strerror}") from error
    if is_file:
        return path
    stem = path.name.removesuffix(".yaml")
    shipped = sorted(str(f.name) for f in files(SHIPPED).iterdir() if str(f.name).endswith(".yaml"))
    if f"{stem}.yaml" in shipped and path.parent in (Path(), Path("suites")):
        return Path(str(files(SHIPPED) / f"{stem}.yaml"))
    if exists and name:
        what = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"'{name}' is {what}; a suite is a YAML file, which data and plug-ins may lie beside")
    known = ", ".join(s.removesuffix(".yaml") for s in shipped)
    raise UserError(
        f"no suite {name[:200]!r}: it is neither a file nor one that ships ({known}).{nearest(stem, shipped)}"
    )


def load_suite(path: Path) -> ResolvedSuite:
    """Return the resolved suite in ``path``; raises SuiteError with every problem at once."""
    return examine(path).finish()


def examine(path: Path) -> Examined:
    """Look at everything in the suite file ``path``; raises UserError where it cannot be read or is no YAML."""
    marks = load_marked(_read(path), file=str(path))
    checker = Checker(marks)
    config = checker.validate(SuiteConfig, marks.data)
    parts = salvage(marks.data) if config is None else parts_of(config)
    resolver = Resolver(checker, parts, path.parent)
    attacks, threats, systems = resolver.attacks(), resolver.threats(), resolver.systems()
    suite = ResolvedSuite(config, path.parent, systems, threats, attacks) if config else None
    if suite and (cells := count_cells(suite)) > MOST_CELLS:
        checker.report((), f"the suite has {cells:,} cells; at most {MOST_CELLS:,}. Split it, or take fewer seeds")
    return Examined(path, checker, parts, suite)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"suite {path} cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"suite {path} is larger than {MOST_BYTES // 1024} KiB, which no suite needs")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"suite {path} is not UTF-8 text: byte {data[error.start]:#04x} in line {line}") from error
