"""From the rows of cells to one number over seeds, or to the worst one over attacks and seats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from qlorabench.records.board import Leak, Quantity, State
from qlorabench.records.over_seeds import Estimate, over_seeds
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


@dataclass(frozen=True)
class Seat:
    """One attack from one seat on one system: the rows of its cells, one a seed."""

    attack: str | None
    threat: str | None
    cells: Sequence[Sequence[Record]]
    """Rows of each seed; none where the cell was not run."""
    twins: Sequence[Sequence[Record]] | None
    """Those of the undefended twin; ``None`` where it is not known, and the rows themselves say whether it leaks."""


def measure(rows: Sequence[Record], *, metric: str) -> Measurement:
    """Return the measurement of ``metric`` in the rows of one cell."""
    for row in rows:
        if row.status != "ok":
            return Measurement(row.status, row)
    for row in rows:
        if row.metric == metric:
            return Measurement("unscored" if _missing(row.value) else "measured", row)
    return Measurement("not run")


def quantity_of(cells: Sequence[Measurement], *, largest: bool) -> Quantity:
    """Merge one number over seeds: their mean, or the largest."""
    lost = [cell for cell in cells if cell.state != "measured"]
    rows = [cell.record for cell in cells if cell.record]
    if lost:
        state = min((cell.state for cell in lost), key=_LOST.index)
        return Quantity(state, lost_seeds=len(lost), reasons=tuple(dict.fromkeys(_reasons(lost))))
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


def leak_of(seats: Sequence[Seat]) -> Leak:
    """Return the worst that any of ``seats`` did, each taken over all its seeds.

    A leak that is measured (its lower end lies above zero) counts even where the undefended twin shows none: a defense
    can open a hole. A low number counts only where the same headline leaks on the twin: that an attack reads small
    clients there says nothing of a largest one that it reads nowhere. Both are asked of all seeds together, and the
    worst is chosen after that: chosen by seed, the shown leak would be that of the seeds that happened to be high.
    """
    counts: Counter[State] = Counter()
    counted: list[Leak] = []
    reasons: list[str] = []
    for seat in seats:
        lost = [cell for cell in map(_lost_cell, seat.cells) if cell]
        counts.update(cell.state for cell in lost)
        reasons += _reasons(lost)
        scored = len(seat.cells) - len(lost)
        evident = [leak for leak in _headlines(seat) if leak.validated or (leak.low or 0.0) > 0.0]
        if scored:
            counts["measured" if evident else "not validated"] += scored
        if scored and not evident:
            reasons += _without_twin(seat)
        counted += evident
    said = {state: counts[state] for state in get_args(State) if counts[state]}
    why = tuple(dict.fromkeys(reasons))
    if not counted:
        state: State = next((s for s in _WITHOUT_LEAK if counts[s]), "not run")
        return Leak(state, cells=said, reasons=why)
    worst = max(counted, key=lambda leak: _exposure(leak.low, leak.value))
    return replace(worst, cells=said, reasons=why)


def _lost_cell(rows: Sequence[Record]) -> Measurement | None:
    """Return what became of an attack's cell that gave no number; ``None`` of one that did."""
    for row in rows:
        if row.status != "ok":
            return Measurement(row.status, row)
    if _scored(rows):
        return None
    return Measurement("unscored", rows[0]) if rows else Measurement("not run")


def _scored(rows: Sequence[Record]) -> list[Record]:
    """Return the headlines of a cell that have a number."""
    return [row for row in rows if row.status == "ok" and row.headline and not _missing(row.leakage)]


def _headlines(seat: Seat) -> list[Leak]:
    """Return every headline of an attack from a seat, each over all seeds."""
    metrics = dict.fromkeys(row.metric for rows in seat.cells for row in _scored(rows))
    return [_headline(seat, metric) for metric in metrics]


def _headline(seat: Seat, metric: str) -> Leak:
    cells = [[row for row in _scored(rows) if row.metric == metric] for rows in seat.cells]
    rows = [row for its in cells for row in its]
    found = _pooled(rows)
    without = [rows for rows, its in zip(seat.cells, cells, strict=True) if not its]
    lost = Counter((_lost_cell(rows) or Measurement("unscored")).state for rows in without)
    return Leak(
        "measured",
        found.value,
        found.low,
        found.high,
        attack=seat.attack,
        threat=seat.threat,
        metric=metric,
        validated=_works(seat, rows, metric),
        note=_note(seat, metric),
        seeds=len(seat.cells),
        lost=dict(lost),
    )


def _works(seat: Seat, rows: Sequence[Record], metric: str) -> bool | None:
    """Tell whether ``metric`` leaks on the undefended twin, all its seeds taken together."""
    if seat.twins is None:
        return _all([row.validated for row in rows])
    twins = [row for its in seat.twins for row in _scored(its) if row.metric == metric]
    return bool(twins) and _pooled(twins).evident


def _pooled(rows: Sequence[Record]) -> Estimate:
    """Return the leakage of one metric over its rows, one a seed."""
    return over_seeds([Estimate(row.leakage or 0.0, row.leakage_low, row.leakage_high) for row in rows])


def _note(seat: Seat, metric: str) -> str:
    """Return the note of the seed that leaks most."""
    cells = [_scored(rows) for rows in seat.cells]
    worst, others = max(
        ((row, its) for its in cells for row in its if row.metric == metric),
        key=lambda pair: _exposure(pair[0].leakage_low, pair[0].leakage),
    )
    silent = any(SILENT in row.note for row in others) and SILENT not in worst.note
    return f"{SILENT}; {worst.note}" if silent else worst.note  # it is the claim's, whichever headline is shown


def _without_twin(seat: Seat) -> list[str]:
    """Say why nothing is known of an attack on the undefended twin, where it gave no number there at all."""
    lost = [_lost_cell(rows) for rows in seat.twins or ()]
    if not lost or None in lost:
        return []
    state = min((cell.state for cell in lost if cell), key=_LOST.index)
    return [f"{seat.attack} from {seat.threat} not validated: on the undefended twin it is {state}"]


def _exposure(low: float | None, value: float | None) -> tuple[bool, float, float]:
    """Return what orders leaks: those that are measured (lower end above 0) first, by how much and not by how surely.

    By the lower end, an attack that reads every text of a few clients would come after one that reads parts of them:
    the interval of a few equal numbers is the widest.
    """
    return ((low or 0.0) > 0.0, value or 0.0, low or 0.0)


def _reasons(cells: Sequence[Measurement]) -> list[str]:
    return [_reason(cell.state, cell.record) for cell in cells if cell.record]


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
