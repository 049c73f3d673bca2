"""Leaderboards for programs: CSV and JSON with raw numbers, missing ones empty or null."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, get_args

from qlorabench.records.board import Board, BoardRow, Leak, Quantity, State, TaskBoard
from qlorabench.records.record import Record
from qlorabench.report._text import legend
from qlorabench.terminal import plain

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a formula starts with, full-width forms included; tabs and carriage returns are written as escapes before."""


def board_json(board: Board) -> str:
    """Return the board with every field of every place, and the legend."""
    return _json({**asdict(board), "legend": legend(board)})


def board_csv(board: Board) -> str:
    """Return a line for each suite, task and system."""
    return _csv([_flat(task, row) for task in board.tasks for row in task.rows])


def details_json(records: Iterable[Record]) -> str:
    """Return the rows as they stand in the journal."""
    return _json([record.to_json() for record in records])


def details_csv(records: Iterable[Record]) -> str:
    """Return the rows as they stand in the journal."""
    return _csv([record.to_json() for record in records])


def _flat(task: TaskBoard, row: BoardRow) -> dict[str, Any]:
    flat: dict[str, Any] = {"suite": task.suite, "task": task.task, "system": row.system}
    flat["seeds"] = " ".join(map(str, task.seeds))
    flat["folder"] = task.folder
    flat["utility"] = task.utility
    for field in fields(row):
        if isinstance(quantity := getattr(row, field.name), Quantity):
            flat |= _quantity(field.name, quantity)
    for goal, leak in row.leaks.items():
        flat |= _leak(goal, leak)
    return flat


def _quantity(name: str, quantity: Quantity) -> dict[str, Any]:
    flat = {"": quantity.value, "_low": quantity.low, "_high": quantity.high, "_state": quantity.state}
    if name.startswith("utility"):
        flat |= {"_control": quantity.control, "_learned": quantity.learned}
    return {f"{name}{end}": value for end, value in flat.items()}


def _leak(goal: str, leak: Leak) -> dict[str, Any]:
    flat = {"": leak.value, "_low": leak.low, "_high": leak.high, "_state": leak.state}
    flat |= {f"_{part}": getattr(leak, part) for part in ("attack", "threat", "metric", "validated")}
    flat["_lost_seeds"] = sum((leak.lost or {}).values())
    for state in get_args(State):
        flat[f"_cells_{state.replace(' ', '_')}"] = (leak.cells or {}).get(state, 0)
    return {f"{goal}{end}": value for end, value in flat.items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula: a quote goes before text that starts as one (OWASP).

    Numbers are never touched.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _json(value: Any) -> str:
    """Return JSON of ASCII without control characters: what else a name or a note holds is written as an escape."""
    return json.dumps(value, indent=1, allow_nan=False).replace("\x7f", "\\u007f") + "\n"
