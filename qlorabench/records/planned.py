"""The plan beside the journal: which cells a folder was last run for, so that a board shows these and no others.

A journal only grows. Rows of a former configuration, of systems that were renamed and of attacks that left the suite
stay in it, so what counts is for the plan to say: ``plan.json``, written before the first cell is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlorabench.errors import UserError
from qlorabench.files import write_json
from qlorabench.records.record import Kind, Record
from qlorabench.sealing import read_sealed, sealed

if TYPE_CHECKING:
    from qlorabench.suite.plan import Cell

FILE = "plan.json"


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a plan: where it stands, and the key that its rows have."""

    key: str
    label: str
    """Path of the cell, as ``--only`` takes it."""
    task: str
    system: str
    seed: int
    kind: Kind
    threat: str | None
    attack: str | None
    goal: str | None
    twin: str | None
    """Key of the same attack from the same seat with the same seed on the undefended twin, which is the cell itself
    where the system is undefended. ``None`` for utility and bandwidth, and where it is not known."""

    def differs_in(self, record: Record) -> str | None:
        """Return which coordinate ``record`` does not share, else ``None``."""
        names = ("task", "system", "seed", "kind", "threat", "attack", "goal")
        return next((name for name in names if getattr(self, name) != getattr(record, name)), None)


@dataclass(frozen=True)
class Planned:
    """The cells of one suite, in the order in which they are run and shown."""

    suite: str
    version: int
    """Version of the suite."""
    cells: tuple[PlannedCell, ...]


def planned(suite: str, version: int, cells: Mapping[str, Cell]) -> Planned:
    """Return the plan of ``cells``, which are given by their keys, in order."""
    keys = {_place(cell, cell.system.name): key for key, cell in cells.items()}
    return Planned(
        suite,
        version,
        tuple(
            PlannedCell(
                **cell.coordinates,
                key=key,
                label=cell.label,
                twin=keys[_place(cell, cell.system.twin)] if cell.kind == "leakage" else None,
            )
            for key, cell in cells.items()
        ),
    )


def write_plan(folder: Path, plan: Planned) -> None:
    """Write plan.json, whole or not at all."""
    write_json(folder / FILE, sealed(asdict(plan)))


def read_plan(folder: Path) -> Planned | None:
    """Return the plan of a folder, ``None`` where it has none; raises UserError where the file is damaged."""
    path = folder / FILE
    try:
        row = read_sealed(path.read_bytes())
        return Planned(row["suite"], row["version"], tuple(PlannedCell(**cell) for cell in row["cells"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: {error}. Run the suite again with --out {folder}: the file is written anew, and no "
            "cell is done twice."
        ) from error


def cells_of(records: Iterable[Record]) -> tuple[PlannedCell, ...]:
    """Return the cells that ``records`` fill, in their order; what their twins are is not known."""
    cells = {}
    for r in records:
        tail = f"{r.threat}/{r.attack}" if r.kind == "leakage" else r.kind
        label = f"{r.task}/{r.system}/seed-{r.seed}/{tail}"
        cells[r.key, label] = PlannedCell(
            r.key, label, r.task, r.system, r.seed, r.kind, r.threat, r.attack, r.goal, twin=None
        )
    return tuple(cells.values())


def _place(cell: Cell, system: str) -> tuple[Any, ...]:
    threat, attack = cell.threat, cell.attack
    return cell.task, system, cell.seed, cell.kind, threat and threat.label, attack and attack.label
