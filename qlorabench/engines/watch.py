"""Says what a run is doing, and how long it will still take.

Whatever is said may hold text from anywhere (an attack's error, a path, a name in a suite): it is shown as it is, and
never read as markup.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qlorabench.terminal import plain, plain_line

QUIET = 30.0
"""Seconds after which a line tells that a long federation goes on, where there is no live display."""


class Watch:
    """Says nothing; the base of those that do."""

    def say(self, text: str) -> None:
        """Tell something; a newline begins another line."""

    def planned(self, *, cells: int, done: int) -> None:
        """Tell how many cells there are, and how many were there before."""

    def committed(self, label: str) -> None:
        """Tell that one more cell is in the journal."""

    @contextmanager
    def starting(self, workers: int) -> Iterator[None]:
        """Tell that workers are being started, which nothing can be done before."""
        yield

    @contextmanager
    def federation(self, name: str, *, rounds: int) -> Iterator[Callable[[int], None]]:
        """Tell that a federation is being trained; the yielded function takes the rounds done."""
        yield lambda done: None

    @contextmanager
    def cell(self, label: str) -> Iterator[None]:
        """Tell that a cell is being measured."""
        yield


class LineWatch(Watch):
    """One line for each thing that is done: for logs, and for whatever is no terminal."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._cells = self._done = 0

    def __enter__(self) -> LineWatch:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Print the text."""
        from rich.text import Text

        self._console.print(Text(plain(text)), soft_wrap=True)

    def planned(self, *, cells: int, done: int) -> None:
        """Print the counts."""
        self._cells += cells
        self._done += done
        self.say(f"{cells} cells, {done} of them measured before")

    def committed(self, label: str) -> None:
        """Print the cell with the count."""
        self._done += 1
        self.say(f"cell {self._done} of {self._cells}: {plain_line(label)}")

    @contextmanager
    def starting(self, workers: int) -> Iterator[None]:
        """Print that workers are being started."""
        self.say(f"starting {_workers(workers)}")
        yield

    @contextmanager
    def federation(self, name: str, *, rounds: int) -> Iterator[Callable[[int], None]]:
        """Print a line when it was trained, and now and then before."""
        counted = _Rounds(rounds)
        said = time.monotonic()

        def progress(done: int) -> None:
            nonlocal said
            counted.note(done)
            with self._lock:
                if time.monotonic() - said < QUIET:
                    return
                said = time.monotonic()
            self.say(f"training {plain_line(name)}: round {done} of {rounds}")

        yield progress
        self.say(counted.result(name))


class RichWatch(LineWatch):
    """A live display: one bar for the cells, one line for each federation and cell under way."""

    def __init__(self, console: Any) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        super().__init__(console)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar: Any = None

    def __enter__(self) -> RichWatch:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def planned(self, *, cells: int, done: int) -> None:
        """Start the bar of the cells."""
        super().planned(cells=cells, done=done)
        if self._bar is None:
            self._bar = self._progress.add_task("cells measured", total=0)
        self._progress.update(self._bar, total=self._cells, completed=self._done)

    def committed(self, label: str) -> None:
        """Move the bar of the cells."""
        self._done += 1
        self._progress.update(self._bar, completed=self._done)

    @contextmanager
    def starting(self, workers: int) -> Iterator[None]:
        """Show a line while workers start."""
        with self._line(f"starting {_workers(workers)}", total=None):
            yield

    @contextmanager
    def federation(self, name: str, *, rounds: int) -> Iterator[Callable[[int], None]]:
        """Show a bar of rounds."""
        counted = _Rounds(rounds)
        with self._line(f"training {name}", total=rounds) as bar:

            def progress(done: int) -> None:
                counted.note(done)
                self._progress.update(bar, completed=done)

            yield progress
            self.say(counted.result(name))

    @contextmanager
    def cell(self, label: str) -> Iterator[None]:
        """Show a line while a cell is measured."""
        with self._line(label.split("/", 1)[1], total=None):
            yield

    @contextmanager
    def _line(self, text: str, *, total: int | None) -> Iterator[Any]:
        bar = self._progress.add_task(plain_line(text), total=total)
        try:
            yield bar
        finally:
            self._progress.remove_task(bar)


class _Rounds:
    """How many rounds were trained, and whether any was trained now."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._first: int | None = None

    def note(self, done: int) -> None:
        """Take the number of rounds done."""
        self._first = self._first or done

    def result(self, name: str) -> str:
        """Return the line that ends a federation."""
        if self._first is None:
            return f"{plain_line(name)}: trained before"
        before = f", {self._first - 1} of them before" if self._first > 1 else ""
        return f"trained {plain_line(name)} ({self._rounds} rounds{before})"


def _workers(count: int) -> str:
    return "a worker" if count == 1 else f"{count} workers"
