"""Says what a run is doing, and how long it will still take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Watch:
    """Says nothing; the base of those that do."""

    def say(self, text: str) -> None:
        """Tell one line."""

    def planned(self, *, cells: int, done: int) -> None:
        """Tell how many cells there are, and how many were there before."""

    def committed(self) -> None:
        """Tell that one more cell is in the journal."""

    @contextmanager
    def federation(self, name: str, *, rounds: int) -> Iterator[Callable[[int], None]]:
        """Tell that a federation is being trained; the yielded function takes the rounds done."""
        yield lambda done: None

    @contextmanager
    def cell(self, label: str) -> Iterator[None]:
        """Tell that a cell is being measured."""
        yield


class RichWatch(Watch):
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

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._console = console
        self._cells: Any = None

    def __enter__(self) -> RichWatch:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False)

    def planned(self, *, cells: int, done: int) -> None:
        """Start the bar of the cells."""
        if self._cells is None:
            self._cells = self._progress.add_task("cells measured", total=0)
        total = (self._progress.tasks[0].total or 0) + cells
        self._progress.update(self._cells, total=total, advance=done)
        self.say(f"{cells} cells, {done} of them measured before")

    def committed(self) -> None:
        """Move the bar of the cells."""
        self._progress.advance(self._cells)

    @contextmanager
    def federation(self, name: str, *, rounds: int) -> Iterator[Callable[[int], None]]:
        """Show a bar of rounds."""
        bar = self._progress.add_task(f"training {name}", total=rounds)
        try:
            yield lambda done: self._progress.update(bar, completed=done)
            self.say(f"trained {name} ({rounds} rounds)")
        finally:
            self._progress.remove_task(bar)

    @contextmanager
    def cell(self, label: str) -> Iterator[None]:
        """Show a line while a cell is measured."""
        bar = self._progress.add_task(label.split("/", 1)[1], total=None)
        try:
            yield
        finally:
            self._progress.remove_task(bar)
