"""An attack that keeps the view it is given, for the tests to look at."""

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.claims import Goal, ReconstructionClaim


class Spy(Attack[AttackConfig]):
    """Keeps its last view."""

    name = "spy"
    goal = Goal.RECONSTRUCTION
    Config = AttackConfig
    requires = frozenset()
    view = None

    def run(self, view, rng):
        type(self).view = view
        return ReconstructionClaim(())
