"""What everybody knows of a federation (Kerckhoffs): all but data, coins and what a defense withholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qlorabench.federation.defense import Schedule
from qlorabench.federation.state import Layout
from qlorabench.suite.schema import HeadConfig, LoraConfig, Objective, TrainingConfig
from qlorabench.tasks.canaries import CanaryConfig


@dataclass(frozen=True)
class DefenseFacts:
    """One defense as the adversary knows it."""

    name: str
    config: Mapping[str, Any]
    """Every field of its config."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it said in `Defense.public_facts`; empty before the federation was trained."""


@dataclass(frozen=True)
class PublicFacts:
    """The public parameters of one defended system on one task."""

    backbone: str
    lora: LoraConfig
    head: HeadConfig
    training: TrainingConfig
    client_rows: tuple[int, ...]
    """Texts of each client, copies of canaries included."""
    max_length: int
    label_names: tuple[str, ...]
    defenses: tuple[DefenseFacts, ...]
    full: Layout
    """Every tensor of the adapter and the head."""
    travelling: Layout
    """The tensors that train and cross the wire; the others stay at their public start."""
    objective: Objective = "classification"
    canaries: CanaryConfig | None = None
    """Number and form of the secrets among the texts (what they say, and who holds them, is not public)."""

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.client_rows)

    @property
    def schedule(self) -> Schedule:
        """The public shape of the training."""
        return Schedule(self.training.rounds, self.training.local_steps, self.training.batch_size, self.client_rows)

    def defense(self, name: str) -> DefenseFacts | None:
        """Return the facts of the defense called ``name``, or ``None`` where the system lacks it."""
        return next((d for d in self.defenses if d.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form that `from_json` reads."""
        return {
            "backbone": self.backbone,
            "lora": self.lora.model_dump(mode="json"),
            "head": self.head.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "client_rows": list(self.client_rows),
            "max_length": self.max_length,
            "label_names": list(self.label_names),
            "defenses": [{"name": d.name, "config": dict(d.config), "facts": dict(d.facts)} for d in self.defenses],
            "full": self.full.to_json(),
            "travelling": self.travelling.to_json(),
            "objective": self.objective,
            "canaries": self.canaries.model_dump(mode="json") if self.canaries else None,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> PublicFacts:
        """Read what `to_json` wrote."""
        return cls(
            backbone=row["backbone"],
            lora=LoraConfig.model_validate(row["lora"]),
            head=HeadConfig.model_validate(row["head"]),
            training=TrainingConfig.model_validate(row["training"]),
            client_rows=tuple(row["client_rows"]),
            max_length=row["max_length"],
            label_names=tuple(row["label_names"]),
            defenses=tuple(DefenseFacts(d["name"], d["config"], d["facts"]) for d in row["defenses"]),
            full=Layout.from_json(row["full"]),
            travelling=Layout.from_json(row["travelling"]),
            objective=row["objective"],
            canaries=CanaryConfig.model_validate(row["canaries"]) if row["canaries"] else None,
        )
