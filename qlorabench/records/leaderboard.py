"""The leaderboard as a pure function of records: the worst case of each goal, and nothing missing unsaid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qlorabench.records._merge import Measurement, leak_of, leakage_cell, measure, quantity_of
from qlorabench.records.board import GOALS, Board, BoardRow, Leak, Quantity, TaskBoard, Utility
from qlorabench.records.journal import latest
from qlorabench.records.record import Kind, Record
from qlorabench.scoring.utility import PERPLEXITY


def leaderboard(records: Iterable[Record]) -> Board:
    """Return the leaderboard of ``records``, which may come from several journals.

    What a system should have is what its task has anywhere in the records: a seed, or an attack from a seat,
    that another system of the task has and this one has not counts as not run.
    """
    parts: dict[tuple[str, str], list[Record]] = {}
    for record in latest(records):
        parts.setdefault((record.suite, record.task), []).append(record)
    return Board(tuple(_task(rows) for rows in parts.values()))


def details(records: Iterable[Record]) -> list[Record]:
    """Return every leakage row that counts, of all metrics, in the order of the journal."""
    return [record for record in latest(records) if record.kind == "leakage"]


def _task(records: Sequence[Record]) -> TaskBoard:
    seeds = tuple(sorted({r.seed for r in records}))
    seats = list(dict.fromkeys((r.goal, r.threat, r.attack) for r in records if r.kind == "leakage"))
    systems = dict.fromkeys(r.system for r in records)
    utility: Utility = "perplexity" if any(r.metric.startswith(PERPLEXITY) for r in records) else "accuracy"
    rows = (_row([r for r in records if r.system == s], utility=utility, seeds=seeds, seats=seats) for s in systems)
    return TaskBoard(records[0].suite, records[0].task, seeds, utility, tuple(rows))


def _row(
    records: Sequence[Record], *, utility: Utility, seeds: Sequence[int], seats: Sequence[tuple[Any, Any, Any]]
) -> BoardRow:
    def quantity(kind: Kind, metric: str, *, largest: bool = False) -> Quantity:
        rows = [r for r in records if r.kind == kind]
        cells = [measure([r for r in rows if r.seed == seed], metric=metric) for seed in seeds]
        return quantity_of(cells, largest=largest)

    return BoardRow(
        system=records[0].system,
        utility_server=quantity("utility", f"{utility}_server"),
        utility_client=quantity("utility", f"{utility}_client"),
        bytes_down_client_round=quantity("bandwidth", "bytes_down_client_round"),
        bytes_up_client_round=quantity("bandwidth", "bytes_up_client_round"),
        bytes_total=quantity("bandwidth", "bytes_total"),
        epsilon=quantity("utility", "epsilon", largest=True),
        leaks={goal: _leak(records, goal=goal, seeds=seeds, seats=seats) for goal in GOALS},
    )


def _leak(records: Sequence[Record], *, goal: str, seeds: Sequence[int], seats: Sequence[tuple[Any, Any, Any]]) -> Leak:
    rows = [r for r in records if r.kind == "leakage"]

    def cell(threat: Any, attack: Any, seed: int) -> Measurement:
        return leakage_cell([r for r in rows if (r.threat, r.attack, r.seed) == (threat, attack, seed)])

    return leak_of([[cell(t, a, seed) for seed in seeds] for its_goal, t, a in seats if its_goal == goal])
