"""An attack that fails with a message that has a path in brackets, as many libraries' messages have."""

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal


class Raises(Attack[AttackConfig]):
    """Fails."""

    name = "raises"
    goal = Goal.MEMBERSHIP
    Config = AttackConfig
    requires = frozenset({Capability.CANDIDATES})

    def run(self, view, rng):
        raise RuntimeError("cannot open any of [/data/model.bin] or [/cache]")
