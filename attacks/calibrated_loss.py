"""Membership by calibrated loss: what the adapter learned of a candidate beyond what the backbone knew."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from qlorabench.federation.state import State
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, MembershipClaim
from qlorabench.threats.view import View


class CalibratedLossConfig(AttackConfig):
    """How many broadcasts are looked at, and what the loss is measured against."""

    broadcasts: int = Field(default=2, ge=1, le=10_000, description="last broadcasts whose losses are averaged")


class CalibratedLoss(Attack[CalibratedLossConfig]):
    """Score = mean over broadcasts of loss(bare backbone) - loss(broadcast adapter).

    The bare backbone is the reference model that public weights give away for free: difficulty calibration
    (Watson et al., ICLR 2022) as LoRA-Leak (2507.18302) applies it to adapters. The reference has the public start
    of the head and no adapter, so that no shadow model is trained. A seat with one adapter uses that one; a seat
    with every broadcast averages over the last ones, which evens out what quantization and the last batches do to a
    single loss. How many to average was not searched. The published figures use language-model losses; here it is the
    task's.
    """

    name: ClassVar[str] = "calibrated-loss"
    goal: ClassVar[Goal] = Goal.MEMBERSHIP
    Config: ClassVar[type[AttackConfig]] = CalibratedLossConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.RELEASED_ADAPTER, Capability.CANDIDATES})
    uses: ClassVar[frozenset[Capability]] = frozenset({Capability.BROADCASTS})
    paper: ClassVar[str] = "Watson et al., On the Importance of Difficulty Calibration, ICLR 2022; LoRA-Leak, 2025"

    def run(self, view: View, rng: np.random.Generator) -> MembershipClaim:
        """Return one score a candidate, in nats; higher means more likely a member."""
        reference = view.lab.losses(view.lab.bare, view.candidates)
        adapters = self._adapters(view)
        losses = np.mean([view.lab.losses(state, view.candidates) for state in adapters], axis=0)
        said = "the released adapter" if len(adapters) == 1 else f"the last {len(adapters)} broadcasts"
        return MembershipClaim(reference - losses, note=f"loss under {said}")

    def _adapters(self, view: View) -> list[State]:
        if not view.has(Capability.BROADCASTS):
            return [view.released]
        return [broadcast.state for broadcast in view.broadcasts[-self.config.broadcasts :]]
