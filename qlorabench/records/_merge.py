"""From the rows of cells to one number over seeds, or to the worst one over attacks and seats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from qlorabench.records.board import Leak, Quantity, State
from qlorabench.records.record import Record
from qlorabench.scoring.score import SILENT

_LOST: tuple[State, ...] = ("failed", "timeout", "unscored", "not run", "unsupported")
"""States without a number, the one to be said first ahead."""

_WITHOUT_LEAK: tuple[State, ...] = ("not validated", "unsupported", *_LOST)
"""States of a goal towards which nothing was measured, the one to be said first ahead."""


@dataclass(frozen=True)
class Measurement:
    """What became of one cell, and the row that says so; a cell that was not run has none."""

    state: State
    record: Record | None = None


def measure(rows: Sequence[Record], *, metric: str) -> Measurement:
    """Return the measurement of ``metric`` in the rows of one cell."""
    for row in rows:
        if row.status != "ok":
            return Measurement(row.status, row)
    for row in rows:
        if row.metric == metric:
            return Measurement("unscored" if _missing(row.value) else "measured", row)
    return Measurement("not run")


def leakage_cell(rows: Sequence[Record]) -> Measurement:
    """Return the headline of one cell of an attack.

    A leak that is measured (its interval lies above zero) counts even where the undefended twin shows none:
    a defense can open a hole. A low number counts only where the same headline leaks on the twin: that an attack reads
    small clients there says nothing of a largest one that it reads nowhere.
    """
    for row in rows:
        if row.status != "ok":
            return Measurement(row.status, row)
    scored = [row for row in rows if row.headline and not _missing(row.leakage)]
    if not scored:
        return Measurement("unscored" if rows else "not run", rows[0] if rows else None)
    evident = [row for row in scored if row.validated or (row.leakage_low or 0.0) > 0.0]
    worst = max(evident or scored, key=lambda row: _exposure(row.leakage_low, row.leakage))
    if any(SILENT in row.note for row in scored) and SILENT not in worst.note:
        worst = replace(worst, note=f"{SILENT}; {worst.note}")  # it is the claim's, whichever headline is shown
    return Measurement("measured" if evident else "not validated", worst)


def quantity_of(cells: Sequence[Measurement], *, largest: bool) -> Quantity:
    """Merge one number over seeds: their mean, or the largest."""
    lost = [cell for cell in cells if cell.state != "measured"]
    rows = [cell.record for cell in cells if cell.record]
    if lost:
        state = min((cell.state for cell in lost), key=_LOST.index)
        return Quantity(state, lost_seeds=len(lost), reasons=_reasons(lost))
    values = [row.value for row in rows if row.value is not None]
    spread = values if len(values) > 1 else []
    return Quantity(
        "measured",
        max(values) if largest else _mean(values),
        min([row.low for row in rows if row.low is not None] or spread, default=None),
        max([row.high for row in rows if row.high is not None] or spread, default=None),
        control=_mean_or_none([row.control for row in rows]),
        learned=_all([row.validated for row in rows]),
    )


def leak_of(seats: Sequence[Sequence[Measurement]]) -> Leak:
    """Return the worst of ``seats``: for each attack from each seat, its cells, one a seed."""
    cells = [cell for seat in seats for cell in seat]
    counts = Counter(cell.state for cell in cells)
    merged = [leak for seat in seats if (leak := _over_seeds(seat))]
    said = {state: counts[state] for state in get_args(State) if counts[state]}
    reasons = _reasons([cell for cell in cells if cell.state in _LOST])
    if not merged:
        state: State = next((s for s in _WITHOUT_LEAK if counts[s]), "not run")
        return Leak(state, cells=said, reasons=reasons)
    worst = max(merged, key=lambda leak: _exposure(leak.low, leak.value))
    return replace(worst, cells=said, reasons=reasons)


def _over_seeds(cells: Sequence[Measurement]) -> Leak | None:
    rows = [cell.record for cell in cells if cell.state == "measured" and cell.record]
    if not rows:
        return None
    worst = max(rows, key=lambda row: _exposure(row.leakage_low, row.leakage))
    rows = rows if len(rows) == len(cells) else [worst]
    return Leak(
        "measured",
        _mean([row.leakage for row in rows if row.leakage is not None]),
        min((row.leakage_low for row in rows if row.leakage_low is not None), default=None),
        max((row.leakage_high for row in rows if row.leakage_high is not None), default=None),
        attack=worst.attack,
        threat=worst.threat,
        metric=worst.metric,
        validated=_all([row.validated for row in rows]),
        note=worst.note,
    )


def _exposure(low: float | None, value: float | None) -> tuple[bool, float, float]:
    """Return what orders leaks: those that are measured (lower end above 0) first, by how much and not by how surely.

    By the lower end, an attack that reads every text of a few clients would come after one that reads parts of them:
    the interval of a few equal numbers is the widest.
    """
    return ((low or 0.0) > 0.0, value or 0.0, low or 0.0)


def _reasons(cells: Sequence[Measurement]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_reason(cell.state, cell.record) for cell in cells if cell.record))


def _reason(state: State, row: Record) -> str:
    """Say what became of a cell; of a traceback its last line."""
    who = f"{row.attack} from {row.threat} " if row.attack else ""
    lines = [line.strip() for line in row.note.splitlines() if line.strip()]
    return f"{who}{state}: {lines[-1] if lines else 'no reason recorded'}"


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return _mean(there) if len(there) == len(values) else None


def _all(values: Sequence[bool | None]) -> bool | None:
    if any(value is False for value in values):
        return False
    return None if None in values else True
