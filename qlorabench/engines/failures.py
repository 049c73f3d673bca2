"""How jobs fail, and how that is told: one line for the record, everything for a file."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Collection
from pathlib import Path

LONGEST = 300
"""Most characters of an error's own message in a note."""


class JobFailed(Exception):
    """A job raised, or its worker was lost. The text is all that is known: the traceback, and what the job printed."""

    def __init__(self, details: str, note: str = "") -> None:
        super().__init__(details)
        self.note = note or _last_line(details)
        """The same in one line."""


class WorkerLost(JobFailed):
    """A worker process ended in the middle of a job."""


class JobTimeout(Exception):
    """A job ran longer than it may; its worker was ended."""


class PoolClosed(Exception):
    """The pool takes no more jobs, or gave up on this one when it was left."""


class AttackFailed(Exception):
    """An attack's own code is wrong; the text is the note of its cell."""


def told(error: BaseException, *, within: Collection[Path] = ()) -> str:
    """Return the type of ``error``, where it was raised, and its message, in one line.

    The place is the last frame in the files or folders ``within``; without one there, the last of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if any(Path(f.filename).is_relative_to(place) for place in within)]
    where = ""
    if frames:
        frame = (own or frames)[-1]
        where = f" in {Path(frame.filename).name}:{frame.lineno} ({frame.name})"
    message = " ".join(_message(error).split())
    short = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
    return f"{type(error).__name__}{where}" + (f": {short}" if short else "")


def ending(code: int | None) -> str:
    """Return how a process with that exit code ended, in words."""
    if code is None or code >= 0:
        return "ended" if code is None else f"ended with exit code {code}"
    try:
        name = f"{-code} ({signal.Signals(-code).name})"
    except ValueError:
        name = str(-code)
    kernel = ", as the kernel does where memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {name}{kernel}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - the text of an error is code of whoever wrote it
        return f"(its message cannot be had: {type(second).__name__})"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason was given"
