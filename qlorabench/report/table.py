"""Leaderboards on a terminal, within 100 columns and without need of colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from qlorabench.records.board import GOALS, Board, BoardRow, TaskBoard
from qlorabench.records.leaderboard import details
from qlorabench.records.record import Record
from qlorabench.report._text import (
    LEGEND,
    NOTHING,
    accuracy_lines,
    by_task,
    bytes_text,
    detail_lines,
    epsilon_text,
    leak_lines,
    reasons,
    title,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
"""Columns that a table takes at most."""


def print_table(board: Board, console: Console) -> None:
    """Print a board: for each suite and task what a system costs, then what it leaks, then how to read both."""
    for task in board.tasks:
        _say(console, title(task), style="bold")
        _print(console, _costs(task))
        _print(console, _leaks(task))
    for line in reasons(board):
        _say(console, line)
    _say(console, NOTHING if not board.tasks else "\n".join(("", *LEGEND)), style="dim")


def print_details(records: Iterable[Record], console: Console) -> None:
    """Print the leakage rows among ``records`` by suite and task; a note stands under the name of its attack."""
    parts = by_task(details(records))
    for heading, rows in parts.items():
        _say(console, heading, style="bold")
        _print(console, _details(rows))
    if not parts:
        _say(console, NOTHING, style="dim")


def _costs(task: TaskBoard) -> Table:
    table = _table("system", "accuracy, server", "accuracy, client", widths=(18, 21, 21))
    for name in ("down/round", "up/round", "total", "epsilon"):
        table.add_column(name, justify="right", overflow="fold")
    for row in task.rows:
        _add(table, _cost_places(row, seeds=len(task.seeds)))
    return table


def _cost_places(row: BoardRow, *, seeds: int) -> list[str]:
    counts = (row.bytes_down_client_round, row.bytes_up_client_round, row.bytes_total)
    return [
        row.system,
        "\n".join(accuracy_lines(row.accuracy_server, seeds=seeds)),
        "\n".join(accuracy_lines(row.accuracy_client, seeds=seeds)),
        *(bytes_text(count, seeds=seeds) for count in counts),
        epsilon_text(row.epsilon, seeds=seeds),
    ]


def _leaks(task: TaskBoard) -> Table:
    table = _table("system", *(f"leakage: {goal}" for goal in GOALS), widths=(18, 26, 26, 26))
    for row in task.rows:
        _add(table, [row.system, *("\n".join(leak_lines(row.leaks[goal])) for goal in GOALS)])
    return table


def _details(records: Sequence[Record]) -> Table:
    table = _table("system, attack, seat", "metric", "value", "n", "leakage", widths=(28, 18, 21, 7, 21))
    for record in records:
        who, *others = ("\n".join(lines) for lines in detail_lines(record))
        note = " ".join(record.note.split())
        _add(table, [f"{who}\n{note}" if note else who, *others])
    return table


def _table(*headings: str, widths: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), highlight=False)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, max_width=width, overflow="fold")
    return table


def _add(table: Table, places: Sequence[str]) -> None:
    """Add a row as plain text: names and notes are never read as markup or emoji."""
    from rich.text import Text

    table.add_row(*map(Text, places))


def _print(console: Console, table: Table) -> None:
    console.print(table, width=min(console.width, WIDTH))


def _say(console: Console, line: str, *, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(line, style=style), width=min(console.width, WIDTH))
