"""What a folder of results says: the rows that count, and the cells that they are to fill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qlorabench.errors import UserError
from qlorabench.records.journal import Block, Journal, latest
from qlorabench.records.over_seeds import leaks
from qlorabench.records.planned import FILE, Planned, PlannedCell, cells_of, read_plan
from qlorabench.records.record import Record


@dataclass(frozen=True)
class Results:
    """The cells of one suite, and the rows that fill them."""

    suite: str
    cells: tuple[PlannedCell, ...]
    """In the order in which they are shown; a cell without rows was not run."""
    rows: Mapping[str, Sequence[Record]]
    """Rows by the key of their cell. What ``validated`` says of leakage is up to date, where a plan names the twin."""
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the folder has to know beside."""

    @property
    def records(self) -> list[Record]:
        """Every row that counts, in the order of the cells."""
        return [row for cell in self.cells for row in self.rows.get(cell.key, ())]


def read_results(folder: Path) -> list[Results]:
    """Return what counts in ``folder``, a part for each suite: the rows whose keys are in its plan.

    Folders of before plans were written hold none: there the latest rows of each cell count. Raises UserError where
    there is no journal, or a file is damaged.
    """
    journal, plan = Journal(_journal_in(folder)), read_plan(folder)
    if plan is None:
        note = f"{folder} has no {FILE}, so the latest rows of each cell are shown, whatever configuration they are of."
        return [replace(part, folder=folder, notes=(note,)) for part in results_of(journal.read())]
    return [_planned(journal, plan, folder)]


def _journal_in(folder: Path) -> Path:
    path = folder / "records.jsonl"
    try:
        there, is_file = path.is_file(), folder.is_file()
    except OSError as error:  # a name too long, links in a circle
        raise UserError(f"no journal in {str(folder)[:200]!r}: {error.strerror}") from error
    if not there:
        what = f"{folder} is a file" if is_file else f"no journal at {path}"
        raise UserError(f"{what}. Give the folder that 'qlorabench run' wrote to.")
    return path


def results_of(records: Iterable[Record]) -> list[Results]:
    """Return ``records`` without a plan, a part for each suite: of each cell the latest rows count."""
    suites: dict[str, list[Record]] = {}
    for record in latest(records):
        suites.setdefault(record.suite, []).append(record)
    return [Results(suite, cells_of(rows), _by_key(rows)) for suite, rows in suites.items()]


def _planned(journal: Journal, plan: Planned, folder: Path) -> Results:
    blocks = {block.key: block for block in journal.blocks()}  # the last try of a cell stands
    cells = {cell.key: cell for cell in plan.cells}
    ours = {key: block.records for key, block in blocks.items() if key in cells}
    for key in ours:
        _check(journal, blocks[key], plan.suite, cells[key])
    others = len(blocks) - len(ours)
    what = "1 cell of another configuration lies" if others == 1 else f"{others} cells of other configurations lie"
    note = f"{what} in {folder} and {'is' if others == 1 else 'are'} not shown."
    rows = {key: _validated(records, ours.get(cells[key].twin or "")) for key, records in ours.items()}
    return Results(plan.suite, plan.cells, rows, folder, (note,) if others else ())


def _check(journal: Journal, block: Block, suite: str, cell: PlannedCell) -> None:
    """Refuse rows that have the key of a cell and are not of it."""
    first = block.records[0]
    wrong = "suite" if first.suite != suite else cell.differs_in(first)
    if wrong:
        planned = suite if wrong == "suite" else getattr(cell, wrong)
        found = getattr(first, wrong)
        raise journal.damaged(block.line, f"{wrong}: {found!r}, where {FILE} has {planned!r} for the cell of that key")


def _validated(rows: Sequence[Record], twins: Sequence[Record] | None) -> Sequence[Record]:
    """Return ``rows`` with ``validated`` as the twin's rows have it, now that they are there or still are not."""
    if rows[0].kind != "leakage":
        return rows
    leaking = {twin.metric: leaks(twin.leakage_low) for twin in twins or ()}
    return [replace(row, validated=None if row.leakage is None else leaking.get(row.metric, False)) for row in rows]


def _by_key(records: Iterable[Record]) -> dict[str, list[Record]]:
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(record.key, []).append(record)
    return rows
