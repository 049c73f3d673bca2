"""Leaderboards on a terminal, within 112 columns and without need of colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from qlorabench.records.board import Board, BoardRow, TaskBoard, Utility
from qlorabench.records.leaderboard import details
from qlorabench.records.record import Record
from qlorabench.report._text import (
    NOTHING,
    by_task,
    bytes_text,
    detail_lines,
    epsilon_text,
    leak_lines,
    legend,
    reasons,
    title,
    utility_lines,
)
from qlorabench.terminal import plain, plain_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 112
"""Columns that a table takes at most."""
_SYSTEM = 18
"""Columns of the systems' names."""
_GOALS = 4
"""Goals in one table: of more the numbers would not fit their columns."""


def print_table(board: Board, console: Console) -> None:
    """Print a board: for each suite and task what a system costs, then what it leaks, then how to read both."""
    for task in board.tasks:
        _say(console, title(task), style="bold")
        _print(console, _costs(task))
        for start in range(0, len(task.goals), _GOALS):
            _print(console, _leaks(task, task.goals[start : start + _GOALS]))
    for line in reasons(board):
        _say(console, plain_line(line))
    _say(console, NOTHING if not board.tasks else "\n".join(("", *legend(board))), style="dim")


def print_details(records: Iterable[Record], console: Console) -> None:
    """Print the leakage rows among ``records`` by suite and task; a note stands under the name of its attack."""
    parts = by_task(details(records))
    for heading, rows in parts.items():
        _say(console, heading, style="bold")
        _print(console, _details(rows))
    if not parts:
        _say(console, NOTHING, style="dim")


def _costs(task: TaskBoard) -> Table:
    table = _table("system", f"{task.utility}, server", f"{task.utility}, client", widths=(_SYSTEM, 21, 21))
    for name in ("down/round", "up/round", "total", "epsilon"):
        table.add_column(name, justify="right", overflow="fold")
    for row in task.rows:
        _add(table, _cost_places(row, task.utility, seeds=len(task.seeds)))
    return table


def _cost_places(row: BoardRow, utility: Utility, *, seeds: int) -> list[Sequence[str]]:
    counts = (row.bytes_down_client_round, row.bytes_up_client_round, row.bytes_total)
    return [
        [row.system],
        utility_lines(row.utility_server, utility, seeds=seeds),
        utility_lines(row.utility_client, utility, seeds=seeds),
        *([bytes_text(count, seeds=seeds)] for count in counts),
        [epsilon_text(row.epsilon, seeds=seeds)],
    ]


def _leaks(task: TaskBoard, goals: Sequence[str]) -> Table:
    width = min(26, (WIDTH - _SYSTEM) // len(goals) - 1)
    table = _table("system", *(f"leakage: {goal}" for goal in goals), widths=(_SYSTEM, *(width for _ in goals)))
    for row in task.rows:
        _add(table, [[row.system], *(leak_lines(row.leaks[goal]) for goal in goals)])
    return table


def _details(records: Sequence[Record]) -> Table:
    table = _table("system, attack, seat", "metric", "value", "n", "leakage", widths=(28, 18, 21, 7, 21))
    for record in records:
        who, *others = detail_lines(record)
        _add(table, [[*who, record.note] if record.note.strip() else who, *others])
    return table


def _table(*headings: str, widths: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), highlight=False)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, max_width=width, overflow="fold")
    return table


def _add(table: Table, places: Sequence[Sequence[str]]) -> None:
    """Add a row of places with lines each, as plain text: names and notes are never markup, emoji or escapes."""
    from rich.text import Text

    table.add_row(*(Text("\n".join(map(plain_line, lines))) for lines in places))


def _print(console: Console, table: Table) -> None:
    console.print(table, width=min(console.width, WIDTH))


def _say(console: Console, line: str, *, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(plain(line), style=style), width=min(console.width, WIDTH))
