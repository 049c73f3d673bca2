"""Worker processes that share one frozen backbone; each runs one job at a time, on one thread.

One thread a process makes results independent of the number of workers, and on small models two such
processes train faster than one process with two threads (see ``benchmarks/federation.py``).
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from qlorabench.errors import UserError


class JobFailed(Exception):
    """A job raised; the text is the traceback of the worker."""


class Timed(NamedTuple):
    """What a job returned, and what it cost in the worker."""

    value: Any
    seconds: float
    """Wall-clock time, that in the queue left out."""
    peak_bytes: int | None = None
    """Most resident memory of the worker meanwhile, the shared backbone included; ``None`` where Linux does not say."""


class JobTimeout(Exception):
    """A job ran longer than it may; its worker was ended."""


@dataclass(frozen=True, eq=False)
class _Job:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    seconds: float | None
    near: str | None
    future: Future[Any]


class Pool:
    """A fixed number of workers, each with the context that ``setup(*arguments)`` built in it.

    ``setup`` and the functions of jobs must be importable by name; a job is called as
    ``function(context, *arguments)``. Tensors in ``arguments`` of ``setup`` are moved to shared memory.
    """

    def __init__(self, setup: Callable[..., Any], *arguments: Any, workers: int) -> None:
        self._setup, self._arguments = setup, arguments
        self._jobs: list[_Job] = []
        self._homes: dict[str, int] = {}
        self._idle: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        seconds: float | None = None,
        near: str | None = None,
    ) -> Future[Any]:
        """Queue a job; its future gives the value, or raises JobFailed, JobTimeout or UserError.

        Jobs with the same ``near`` go to the same worker where that costs no waiting, since it may remember
        what they have in common.
        """
        job = _Job(function, arguments, seconds, near, Future())
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        return job.future

    def _next(self, worker: int) -> _Job | None:
        """Wait for a job that this worker should do; ``None`` at the end."""
        with self._changed:
            self._idle.add(worker)
            while (job := self._pick(worker)) is None:
                if self._closed:
                    return None
                self._changed.wait()
            self._idle.discard(worker)
            self._jobs.remove(job)
            if job.near is not None:
                self._homes.setdefault(job.near, worker)
            self._changed.notify_all()  # jobs at home here may be done elsewhere now
            return job

    def _pick(self, worker: int) -> _Job | None:
        """Return the first job at home here, else the first without a home, else one whose home is busy."""
        homes = [(job, self._homes.get(job.near) if job.near else None) for job in self._jobs]
        here = (job for job, home in homes if home == worker)
        free = (job for job, home in homes if home is None)
        spare = (job for job, home in homes if home is not None and home not in self._idle)
        return next(here, None) or next(free, None) or next(spare, None)

    def _serve(self, index: int) -> None:
        worker: _Worker | None = None
        while (job := self._next(index)) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                if worker is None:
                    worker = _Worker(self._setup, self._arguments)
                job.future.set_result(worker.call(job))
            except (JobTimeout, EOFError, OSError) as error:
                if worker is not None:
                    worker.end()
                worker = None
                job.future.set_exception(
                    error if isinstance(error, JobTimeout) else JobFailed(f"the worker process died: {error!r}")
                )
            except Exception as error:  # noqa: BLE001 - handed on to whoever waits for the job
                job.future.set_exception(error)
        if worker is not None:
            worker.end()


def timed(context: Any, function: Callable[..., Any], *arguments: Any) -> Timed:
    """Job: run another job, and return its value with the seconds and the memory that it took."""
    fresh = _reset_peak()
    start = time.monotonic()
    value = function(context, *arguments)
    return Timed(value, time.monotonic() - start, _peak_bytes() if fresh else None)


def _reset_peak() -> bool:
    """Let the kernel count this process's peak memory anew; tell whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_bytes() -> int | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024  # the kernel says kB and means KiB
    return None


class _Worker:
    def __init__(self, setup: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        import torch.multiprocessing as mp

        context = mp.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(target=_work, args=(child, setup, arguments), daemon=True)
        self._process.start()
        child.close()
        try:
            self._receive(deadline=None)
        except BaseException:
            self.end()
            raise

    def call(self, job: _Job) -> Any:
        self._pipe.send((job.function, job.arguments))
        return self._receive(deadline=None if job.seconds is None else time.monotonic() + job.seconds)

    def _receive(self, *, deadline: float | None) -> Any:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._pipe.poll(left):
            raise JobTimeout("the job ran longer than it may")
        kind, value = self._pipe.recv()
        if kind == "ok":
            return value
        raise UserError(value) if kind == "user" else JobFailed(value)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _work(pipe: Connection, setup: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import signal
    import warnings

    import torch

    # Opacus hooks layers whose inputs need no gradient, as the first adapted layer's; that is meant
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")  # of every layer, every pass

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    torch.set_num_threads(1)
    context = None
    function: Callable[..., Any] = setup
    try:
        while True:
            try:
                result = function(*arguments) if context is None else function(context, *arguments)
                context = result if context is None else context
                pipe.send(("ok", None if function is setup else result))
            except UserError as error:
                pipe.send(("user", str(error)))
            except Exception:  # noqa: BLE001 - reported whole to the parent
                pipe.send(("failed", traceback.format_exc()))
            function, arguments = pipe.recv()
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone
