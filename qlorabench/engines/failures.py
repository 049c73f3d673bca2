"""How jobs fail, and how that is told: one line for the record, everything for a file."""

from __future__ import annotations

import signal

from qlorabench.errors import told


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


def note_of(error: BaseException) -> str:
    """Return the note of a job that raised ``error``."""
    return str(error) if isinstance(error, AttackFailed) else told(error)


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


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason was given"
