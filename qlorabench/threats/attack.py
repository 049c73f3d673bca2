"""The contract of an attack: it declares what it needs, looks at a view, and asserts a claim."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Claim, Goal
from qlorabench.threats.models import ThreatModel
from qlorabench.threats.view import View


class AttackConfig(BaseModel):
    """Base of every attack's configuration: frozen, unknown keys refused, finite; every field described and ranged."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=AttackConfig)


class Attack(Generic[ConfigT]):
    """An attack: one file, one frozen config, one method that matters.

    It never touches secrets and never computes a metric: a view holds what its seat is granted and nothing
    else, and the harness judges what the attack asserts.
    """

    name: ClassVar[str]
    """Name in suites, as registered."""
    version: ClassVar[int] = 1
    """Raised when the meaning of the attack changes."""
    goal: ClassVar[Goal]
    Config: ClassVar[type[AttackConfig]]
    requires: ClassVar[frozenset[Capability]]
    """What a threat model must grant."""
    uses: ClassVar[frozenset[Capability]] = frozenset()
    """What the attack makes use of where it is granted."""
    paper: ClassVar[str] = ""
    """Where the attack comes from."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def blind(self, facts: PublicFacts) -> str | None:
        """Return why the system leaves this attack no signal, else ``None``.

        It is asked before anything is trained: the layouts of ``facts`` are empty then, and the facts of its
        defenses too. A cell that is blind is recorded as unsupported, never as zero leakage.
        """
        return None

    def run(self, view: View, rng: np.random.Generator) -> Claim:
        """Return the claim."""
        raise TypeError(f"{type(self).__name__} does not define run(view, rng)")


def misfit(attack: type[Attack[AttackConfig]], threat: ThreatModel) -> str | None:
    """Return why ``attack`` has no place in the seat of ``threat``, else ``None``.

    Either a required capability is not granted, or the seat holds from the start what the attack is after.
    """
    if attack.goal is Goal.ADAPTER and Capability.SERVER_ADAPTER in threat.grants:
        return "holds the adapter already"
    missing = [c.value for c in Capability if c in attack.requires - threat.grants]
    return f"needs {', '.join(missing)}" if missing else None
