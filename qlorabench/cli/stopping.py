"""What ends a run from outside: an interrupt from the keyboard, a request to end, a terminal that is closed."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from qlorabench.terminal import plain_line

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Let each of `SIGNALS` raise KeyboardInterrupt in the main thread; the list has the one that came.

    A second one ends the process at once, whatever it is cleaning up. Signals that the caller ignores, as ``nohup``
    does, stay ignored.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    former = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number, handler in former.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, former[number])


def farewell() -> str:
    """Return what is said when the command was stopped: for a run, how it is taken up again."""
    words = sys.argv[1:]
    if "run" not in words[:1]:
        return "stopped"
    return f"stopped; nothing that was finished is lost. The same command resumes: {command(words)}"


def command(words: list[str]) -> str:
    """Return the command line to type, on one line."""
    return plain_line(shlex.join(["qlorabench", *words]))
