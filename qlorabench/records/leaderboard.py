"""The leaderboard as a pure function of results: the worst case of each goal, and nothing missing unsaid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from qlorabench.records._merge import Seat, leak_of, measure, quantity_of
from qlorabench.records.board import GOALS, Board, BoardRow, Quantity, TaskBoard, Utility
from qlorabench.records.planned import PlannedCell
from qlorabench.records.record import Kind, Record
from qlorabench.records.results import Results, results_of
from qlorabench.scoring.utility import PERPLEXITY

Place: TypeAlias = tuple[str, Kind, str | None, str | None, int]
"""System, kind, threat, attack and seed of a cell of one task."""


def leaderboard(records: Iterable[Record]) -> Board:
    """Return the leaderboard of ``records`` without a plan, of each cell the latest."""
    return board_of(results_of(records))


def board_of(results: Iterable[Results]) -> Board:
    """Return the leaderboard of what lies in one or more folders.

    Every cell that is planned has a place, run or not. What a system should have is what its task has anywhere in the
    plan: a seed, or an attack from a seat, that another system of the task has and this one has not counts as not run.
    Folders that were run for the same cells are taken together. Folders with other configurations of the same name
    are parts of their own, and say where they lie.
    """
    parts: list[_Part] = []
    notes: list[str] = []
    for result in results:
        notes += result.notes
        for part in _parts(result):
            same = next((p for p in parts if p.fills_the_same_cells(part)), None)
            if same:
                same.take(part)
            else:
                parts.append(part)
    names = [(part.suite, part.task) for part in parts]
    return Board(
        tuple(part.board(named=names.count((part.suite, part.task)) > 1) for part in parts),
        tuple(dict.fromkeys(notes)),
    )


def details(records: Iterable[Record]) -> list[Record]:
    """Return every leakage row among ``records`` that count, of all metrics, in their order."""
    return [record for record in records if record.kind == "leakage"]


@dataclass
class _Part:
    """One task of the results of one folder, or of folders that share its plan."""

    suite: str
    task: str
    cells: list[PlannedCell]
    rows: dict[str, Sequence[Record]]
    """By key."""
    folder: str | None

    def fills_the_same_cells(self, other: _Part) -> bool:
        """Tell whether the rows of both are of the same plan."""
        return (self.suite, self.task, self.cells) == (other.suite, other.task, other.cells)

    def take(self, other: _Part) -> None:
        """Add the rows of cells that failed or were not run here."""
        for key, rows in other.rows.items():
            if not any(row.status == "ok" for row in self.rows.get(key, ())):
                self.rows[key] = rows

    def board(self, *, named: bool) -> TaskBoard:
        """Return the part of the board; ``named`` is whether it says where its rows lie."""
        seeds = tuple(sorted({cell.seed for cell in self.cells}))
        metrics = (row.metric for rows in self.rows.values() for row in rows)
        utility: Utility = "perplexity" if any(metric.startswith(PERPLEXITY) for metric in metrics) else "accuracy"
        systems = dict.fromkeys(cell.system for cell in self.cells)
        places = {(c.system, c.kind, c.threat, c.attack, c.seed): c for c in self.cells}
        attacks: dict[str, dict[tuple[str | None, str | None], None]] = {goal: {} for goal in GOALS}
        for cell in self.cells:
            if cell.goal is not None:
                attacks[cell.goal][cell.threat, cell.attack] = None
        rows = []
        for system in systems:
            quantity = self._quantities(system, places, seeds)
            leaks = {
                goal: leak_of([self._seat(system, threat, attack, places, seeds) for threat, attack in its])
                for goal, its in attacks.items()
            }
            rows.append(
                BoardRow(
                    system=system,
                    utility_server=quantity("utility", f"{utility}_server"),
                    utility_client=quantity("utility", f"{utility}_client"),
                    bytes_down_client_round=quantity("bandwidth", "bytes_down_client_round"),
                    bytes_up_client_round=quantity("bandwidth", "bytes_up_client_round"),
                    bytes_total=quantity("bandwidth", "bytes_total"),
                    epsilon=quantity("utility", "epsilon"),
                    dropout=quantity("utility", "dropout"),
                    leaks=leaks,
                )
            )
        return TaskBoard(self.suite, self.task, seeds, utility, tuple(rows), self.folder if named else None)

    def _quantities(
        self, system: str, places: Mapping[Place, PlannedCell], seeds: Sequence[int]
    ) -> Callable[[Kind, str], Quantity]:
        """Return what merges one metric of a system over its seeds."""

        def quantity(kind: Kind, metric: str) -> Quantity:
            cells = [self._rows(places.get((system, kind, None, None, seed))) for seed in seeds]
            return quantity_of([measure(rows, metric=metric) for rows in cells], largest=metric == "epsilon")

        return quantity

    def _seat(
        self,
        system: str,
        threat: str | None,
        attack: str | None,
        places: Mapping[Place, PlannedCell],
        seeds: Sequence[int],
    ) -> Seat:
        cells = [places.get((system, "leakage", threat, attack, seed)) for seed in seeds]
        known = any(cell and cell.twin for cell in cells)
        twins = [self.rows.get(cell.twin or "", ()) if cell else () for cell in cells]
        return Seat(attack, threat, [self._rows(cell) for cell in cells], twins if known else None)

    def _rows(self, cell: PlannedCell | None) -> Sequence[Record]:
        return self.rows.get(cell.key, ()) if cell else ()


def _parts(results: Results) -> list[_Part]:
    tasks: dict[str, list[PlannedCell]] = {}
    for cell in results.cells:
        tasks.setdefault(cell.task, []).append(cell)
    folder = None if results.folder is None else str(results.folder)
    return [
        _Part(
            results.suite,
            task,
            cells,
            {cell.key: results.rows[cell.key] for cell in cells if cell.key in results.rows},
            folder,
        )
        for task, cells in tasks.items()
    ]
