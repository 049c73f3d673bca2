"""One worker process: how it is started, asked, overheard and ended, and what runs in it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from qlorabench.engines.failures import JobFailed, JobTimeout, WorkerLost, ending, note_of
from qlorabench.errors import UserError

GLANCE = 1.0
"""Seconds between two looks at whether a silent worker is still there."""
_OVERHEARD = 100_000
"""Bytes kept of what a job prints: the last ones."""


@dataclass(frozen=True)
class Answer:
    """What a job returned, and what it printed meanwhile."""

    value: Any
    printed: str


class Worker:
    """A process that builds a context with ``setup(*arguments)`` and then answers one call at a time."""

    def __init__(self, setup: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        import torch.multiprocessing as mp

        self._ready = self.ended = False
        context = mp.get_context("spawn")
        try:
            self._pipe, child = context.Pipe()
            handle, name = tempfile.mkstemp(prefix="qlorabench-worker-")
            self._output, self._name = os.fdopen(handle, "rb+"), Path(name)
            self._process = context.Process(target=_work, args=(child, name, setup, arguments), daemon=True)
            _start(self._process)
        except OSError as error:
            raise UserError(
                f"a worker process cannot be started: {error}. Free memory and disk, or take fewer --workers."
            ) from error
        child.close()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None) -> Answer:
        """Return what ``function(context, *arguments)`` gives.

        Raises what `Pool.submit` tells of, WorkerLost among it; after that, after JobTimeout and where the context
        cannot be built, the worker has ended.
        """
        try:
            if not self._ready:
                self._receive(deadline=None)
                self._ready = True
                self._name.unlink(missing_ok=True)  # the worker has it open; no kill can leave it behind now
            self._output.truncate(0)
            try:
                self._pipe.send((function, arguments))
            except OSError as error:
                raise self._lost() from error
            value = self._receive(deadline=None if seconds is None else time.monotonic() + seconds)
        except (JobTimeout, WorkerLost):
            self.end()
            raise
        except BaseException:
            if not self._ready:
                self.end()
            raise
        return Answer(value, self._printed())

    def kill(self) -> None:
        """End the process at once, from any thread; whoever waits for its answer is told that it is lost."""
        self._process.kill()

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self.ended = True
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._output.close()
        self._name.unlink(missing_ok=True)

    def _receive(self, *, deadline: float | None) -> Any:
        try:
            while not self._pipe.poll(_until(deadline)):
                # a process that the worker forked may hold the other end of the pipe open
                if not self._process.is_alive() and not self._pipe.poll(0):
                    raise EOFError
                if deadline is not None and time.monotonic() >= deadline:
                    raise JobTimeout("the job ran longer than it may")
            kind, value, note = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if kind == "ok":
            return value
        raise UserError(value) if kind == "user" else JobFailed(_with_output(value, self._printed()), note)

    def _lost(self) -> WorkerLost:
        self._process.join(GLANCE)
        note = f"the worker process {ending(self._process.exitcode)}"
        return WorkerLost(_with_output(note, self._printed()), note)

    def _printed(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _OVERHEARD))
        return self._output.read().decode("utf-8", "replace")


def _until(deadline: float | None) -> float:
    return GLANCE if deadline is None else min(GLANCE, max(0.0, deadline - time.monotonic()))


def _with_output(details: str, printed: str) -> str:
    return f"{details.rstrip()}\n\nWhat it printed:\n{printed}" if printed.strip() else details


def _start(process: Any) -> None:
    """Start a process that no interrupt from the keyboard reaches, also while it imports its modules."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, output: str, setup: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Build the context, then answer calls until the parent is gone."""
    _end_with_parent()
    _prepare(output)
    context = None
    function: Callable[..., Any] = setup
    try:
        while True:
            try:
                result = function(*arguments) if context is None else function(context, *arguments)
                context = result if context is None else context
                answer = ("ok", None if function is setup else result, "")
                sys.stdout.flush()
                pipe.send(answer)
            except UserError as error:
                pipe.send(("user", str(error), ""))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - reported whole to the parent
                pipe.send(("failed", traceback.format_exc(), note_of(error)))
            function, arguments = pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone


def _prepare(output: str) -> None:
    """Set up the process: one thread, no interrupts, and what it prints in a file where it disturbs no display."""
    import faulthandler
    import multiprocessing
    import warnings

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    handle = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    for text in (sys.stdout, sys.stderr):
        text.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable(file=2)  # a crash of the interpreter is told with its traceback
    # locks of libraries (tqdm's) have names with "spawn", and a worker that is killed leaves them behind
    multiprocessing.set_start_method("fork", force=True)
    # Opacus hooks layers whose inputs need no gradient, as the first adapted layer's; that is meant
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")  # of every layer, every pass
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Make sure that this process outlives its parent by seconds at most, however that one ends."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":  # a thread waits for its turn while native code computes; the kernel does not
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent.pid:
            os._exit(1)  # the parent ended before the kernel was asked
