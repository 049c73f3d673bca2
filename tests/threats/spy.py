"""An attack that keeps the view it is given, for the tests to look at."""

import numpy as np

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.claims import Goal, MembershipClaim


class Spy(Attack[AttackConfig]):
    """Keeps its last view."""

    name = "spy"
    goal = Goal.MEMBERSHIP
    Config = AttackConfig
    requires = frozenset()
    view = None

    def run(self, view, rng):
        type(self).view = view
        return MembershipClaim(np.zeros(len(view.candidates)))
