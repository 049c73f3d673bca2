"""Whether a plug-in's class is what its group asks for, as far as the class alone tells."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from qlorabench.federation.defense import Defense
from qlorabench.plugins import Group
from qlorabench.tasks.sources import Source
from qlorabench.threats.attack import Attack
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal

BASES: dict[Group, type] = {"attacks": Attack, "defenses": Defense, "tasks": Source}
"""What a plug-in of each group derives from."""


def unusable(group: Group, cls: type) -> str | None:
    """Return why nothing can be made of ``cls`` at all, else ``None``."""
    base = BASES[group]
    if not issubclass(cls, base):
        return f"{cls.__name__} is no {base.__name__}"
    config = cls if group == "tasks" else getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        return f"{cls.__name__} has no Config, a class derived from {base.__name__}Config"
    return None


def attack_faults(cls: type[Attack[Any]]) -> list[str]:
    """Return what an attack lacks of its contract: its cells would fail."""
    faults = []
    if not isinstance(getattr(cls, "name", None), str):
        faults.append("has no 'name', a text")
    goal = getattr(cls, "goal", None)
    if not isinstance(goal, Goal):
        found = "has no 'goal'" if goal is None else f"has the goal {goal!r:.60}"
        faults.append(f"{found}; it must be one of Goal.{', Goal.'.join(g.name for g in Goal)}")
    for place in ("requires", "uses"):
        needs = getattr(cls, place, None)
        if not isinstance(needs, frozenset) or not all(isinstance(need, Capability) for need in needs):
            found = f"has no '{place}'" if needs is None else f"has a '{place}' that is none"
            faults.append(f"{found}: a frozenset of Capability, empty where it needs nothing")
    if cls.run is Attack.run:
        faults.append("does not define run(view, rng)")
    return [f"{cls.__name__} {fault}" for fault in faults]
