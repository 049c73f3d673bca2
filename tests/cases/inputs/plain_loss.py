from pydantic import Field

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, MembershipClaim


class PlainLossConfig(AttackConfig):
    sign: float = Field(default=-1.0, ge=-1, le=1, description="factor on the loss")


class PlainLoss(Attack[PlainLossConfig]):
    """Members have a lower loss."""

    name = "plain-loss"
    goal = Goal.MEMBERSHIP
    Config = PlainLossConfig
    requires = frozenset({Capability.RELEASED_ADAPTER, Capability.CANDIDATES})

    def run(self, view, rng):
        return MembershipClaim(self.config.sign * view.lab.losses(view.released, view.candidates))
