"""Mistakes a reader can mend: they are told in one message and end the program with exit code 2."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST = 300
"""Most characters of an error's own message where it is told in one line."""


class UserError(Exception):
    """Something outside qlorabench is wrong (a suite, a file, a package, the network).

    The message says what is wrong, where, what is allowed and how to mend it. The command line prints it
    without a traceback and exits with code 2.
    """


class DamagedError(UserError):
    """A file of a run is not what was written: whoever reads it, that file is what has to be mended."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a suite: where it stands, what was found, and what would be right."""

    path: str
    """YAML path, as in ``systems.frozen.defenses[0].rank``; empty for the file as a whole."""
    message: str
    """What was found, what is allowed and, where one is near, the right name."""
    line: int | None = None
    """Line in the file, counted from 1; ``None`` where the problem has no line."""

    def __str__(self) -> str:
        where = self.path or "(suite)"
        return f"{where} (line {self.line}): {self.message}" if self.line else f"{where}: {self.message}"


class SuiteError(UserError):
    """Every problem of one suite, said at once."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda p: (p.line or 0, p.path)))
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__("\n".join([f"{file}: {count}", *(f"  {p}" for p in self.problems)]))


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of ``allowed``, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def told(error: BaseException, *, within: Collection[Path] = ()) -> str:
    """Return the type of ``error``, where it was raised, and its message, in one line.

    The place is the last frame in a file that lies directly in a folder of ``within``; without one, the last of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).parent in within]
    where = ""
    if frames:
        frame = (own or frames)[-1]
        where = f" in {Path(frame.filename).name}:{frame.lineno} ({frame.name})"
    message = " ".join(_message(error).split())
    short = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
    return f"{type(error).__name__}{where}" + (f": {short}" if short else "")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - the text of an error is code of whoever wrote it
        return f"(its message cannot be had: {type(second).__name__})"
