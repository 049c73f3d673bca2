"""Mistakes a reader can mend: they are told in one message and end the program with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class UserError(Exception):
    """Something outside qlorabench is wrong (a suite, a file, a package, the network).

    The message says what is wrong, where, what is allowed and how to mend it. The command line prints it
    without a traceback and exits with code 2.
    """


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
