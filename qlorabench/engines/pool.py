"""Worker processes that share one frozen backbone; each runs one job at a time, on one thread.

One thread a process makes results independent of the number of workers, and on small models two such
processes train faster than one process with two threads (see ``benchmarks/federation.py``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from qlorabench.engines.failures import JobFailed, JobTimeout, PoolClosed, WorkerLost
from qlorabench.engines.worker import Worker

__all__ = ["JobFailed", "JobTimeout", "Pool", "PoolClosed", "Timed", "WorkerLost", "in_order", "nothing", "timed"]


class Timed(NamedTuple):
    """What a job returned, and what it cost in the worker."""

    value: Any
    seconds: float
    """Wall-clock time, that in the queue left out."""
    peak_bytes: int | None = None
    """Most resident memory of the worker meanwhile, the shared backbone included; ``None`` where Linux does not say."""


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

    def __init__(
        self,
        setup: Callable[..., Any],
        *arguments: Any,
        workers: int,
        overheard: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._setup, self._arguments = setup, arguments
        self._overheard = overheard
        """Takes what a job printed that did not fail."""
        self._jobs: list[_Job] = []
        self._homes: dict[str, int] = {}
        self._idle: set[int] = set()
        self._workers: dict[int, Worker] = {}
        self._closed = self._given_up = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Take no more jobs and cancel those that were not begun.

        A running job is waited for; where the pool is left by an exception, its worker is killed instead.
        """
        with self._changed:
            self._closed = True
            self._given_up = kind is not None
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify_all()
            doomed = list(self._workers.values()) if self._given_up else []
        for worker in doomed:
            worker.kill()
        for thread in self._threads:
            thread.join()

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        seconds: float | None = None,
        near: str | None = None,
    ) -> Future[Any]:
        """Queue a job; its future gives the value, or raises JobFailed, JobTimeout, PoolClosed or UserError.

        A job whose worker is lost (to the kernel that needs memory, to a crash) is done once more on a fresh one.
        Jobs with the same ``near`` go to the same worker where that costs no waiting, since it may remember
        what they have in common.
        """
        job = _Job(function, arguments, seconds, near, Future())
        with self._changed:
            if self._closed:
                raise PoolClosed("the pool takes no more jobs")
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
        while (job := self._next(index)) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                value = self._done(index, job)
            except Exception as error:  # noqa: BLE001 - handed on to whoever waits for the job
                job.future.set_exception(error)
            else:
                job.future.set_result(value)
        if index in self._workers:
            self._workers[index].end()

    def _done(self, index: int, job: _Job) -> Any:
        """Do a job, and once more on a fresh worker where the first one is lost."""
        for try_ in (1, 2):
            try:
                answer = self._worker(index).call(job.function, job.arguments, job.seconds)
            except WorkerLost as lost:
                if self._given_up:
                    raise PoolClosed("the pool was left in the middle of the job") from lost
                if try_ == 2:
                    raise WorkerLost(
                        f"{lost}\n\nIt was the second try.", f"{lost.note}, on the second try too"
                    ) from lost
            else:
                if answer.printed.strip():
                    self._overheard(answer.printed)
                return answer.value
        raise AssertionError("the second try returns or raises")

    def _worker(self, index: int) -> Worker:
        """Return the worker of that number, a fresh one where there is none."""
        worker = self._workers.get(index)
        if worker is None or worker.ended:
            worker = Worker(self._setup, self._arguments)
            with self._changed:
                self._workers[index] = worker
                if self._given_up:
                    worker.kill()
        return worker


_Subject = TypeVar("_Subject")
_Value = TypeVar("_Value")


def in_order(
    futures: Sequence[tuple[_Subject, Future[_Value]]], *, beside: Collection[Future[Any]] = ()
) -> Iterator[tuple[_Subject, _Value]]:
    """Yield each subject with what its future gives, in order.

    The first future that raises ends it at once, also one further behind or one of those ``beside``: nobody waits for
    hours to be told of a mistake that is known.
    """
    open_ = {*beside, *(future for _, future in futures)}
    for subject, future in futures:
        while future in open_:
            done, open_ = wait(open_, return_when=FIRST_COMPLETED)
            for other in done:
                other.result()
        yield subject, future.result()


def nothing(context: Any) -> None:
    """Job: does nothing, once there is a worker to do it."""


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
