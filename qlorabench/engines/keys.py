"""Content keys of federations and cells: everything that changes their output, and nothing else."""

from __future__ import annotations

from typing import Any

from qlorabench.hashing import digest
from qlorabench.suite.plan import Cell
from qlorabench.suite.resolve import ResolvedSystem
from qlorabench.suite.schema import SuiteConfig

FORMAT = 1
"""Raised with every change of the harness that changes bytes on the wire or numbers in records."""


def federation_key(system: ResolvedSystem, *, seed: int, data: str, backbone: str) -> str:
    """Return the key of a trained federation; ``data`` and ``backbone`` are content hashes.

    The names of the task and the system are left out, so that renaming them trains nothing anew.
    """
    task = system.task.model_dump(mode="json", exclude={"backbone": {"name", "revision"}})
    task["data"].pop("source")
    defenses = [
        [name, config, version] for (name, config), version in zip(system.defenses, system.versions, strict=True)
    ]
    return digest(
        {"format": FORMAT, "task": task, "defenses": defenses, "seed": seed, "data": data, "backbone": backbone}
    )


def cell_key(cell: Cell, *, federation: str, twin: str, suite: SuiteConfig, insiders: int) -> str:
    """Return the key of a cell's rows; ``twin`` is the key of the federation that is its positive control.

    ``insiders`` is the number of clients whose rows no membership game asks about.
    """
    parts: dict[str, Any] = {
        "format": FORMAT,
        "labels": [suite.name, suite.version, cell.label],
        "federation": federation,
    }
    if cell.attack and cell.threat:
        parts |= {
            "twin": twin,
            "threat": [cell.threat.label, cell.threat.colluders, sorted(cell.threat.grants)],
            "attack": [cell.attack.name, cell.attack.config, cell.attack.version],
            "candidates": [suite.candidates, insiders],
        }
    return digest(parts)
