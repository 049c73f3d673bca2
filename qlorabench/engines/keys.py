"""Content keys of federations and cells: everything that changes their output, and nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import qlorabench
from qlorabench.hashing import digest, file_sha256
from qlorabench.suite.plan import Cell
from qlorabench.suite.resolve import ResolvedSystem
from qlorabench.suite.schema import SuiteConfig

FORMAT = 2
"""Raised when journals or transcripts change their form."""
TRAINING = ("federation", "codecs", "tasks", "seeding.py", "suite/schema.py")
"""Code of the harness that a federation's bytes follow from."""
JUDGING = ("threats", "scoring", "engines/measure.py", "engines/null.py", "engines/scene.py")
"""Code of the harness that a cell's numbers follow from, given the federation."""


@cache
def code(parts: tuple[str, ...]) -> str:
    """Return a hash of the harness's source files in ``parts``: a forgotten version never keeps stale results."""
    root = Path(qlorabench.__file__).parent
    files = [
        file for part in parts for file in ((root / part).rglob("*.py") if (root / part).is_dir() else [root / part])
    ]
    return digest({file.relative_to(root).as_posix(): file_sha256(file) for file in files})


def federation_key(system: ResolvedSystem, *, seed: int, data: str, backbone: str) -> str:
    """Return the key of a trained federation; ``data`` and ``backbone`` are content hashes.

    That of the data covers what the tokenizer makes of them, for the backbone's covers its weights alone.
    The names of the task and the system are left out, so that renaming them trains nothing anew.
    """
    task = system.task.model_dump(mode="json", exclude={"backbone": {"name", "revision"}})
    task["data"].pop("source")
    defenses = [
        [name, config, version] for (name, config), version in zip(system.defenses, system.versions, strict=True)
    ]
    return digest(
        {
            "format": [FORMAT, code(TRAINING)],
            "task": task,
            "defenses": defenses,
            "seed": seed,
            "data": data,
            "backbone": backbone,
        }
    )


def cell_key(
    cell: Cell, *, federation: str, twin: str, suite: SuiteConfig, insiders: int, null: str | None = None
) -> str:
    """Return the key of a cell's rows; ``twin`` is the key of the federation that is its positive control.

    ``insiders`` is the number of clients whose rows no membership game asks about, ``null`` the key of the federation
    that is the control of a membership attack.
    """
    parts: dict[str, Any] = {
        "format": [FORMAT, code(JUDGING)],
        "labels": [suite.name, suite.version, cell.label],
        "federation": federation,
    }
    if cell.attack and cell.threat:
        parts |= {
            "twin": twin,
            "threat": [cell.threat.label, cell.threat.colluders, sorted(cell.threat.grants)],
            "attack": [cell.attack.name, cell.attack.config, cell.attack.version],
            "candidates": [suite.candidates, insiders],
            "null": null,
        }
    return digest(parts)
