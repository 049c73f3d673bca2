"""Attacks that keep every view they are given, for the tests to look at, and tell nothing."""

from typing import ClassVar

import numpy as np

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, MembershipClaim
from qlorabench.threats.view import View


class Reader(Attack[AttackConfig]):
    """Needs broadcasts alone."""

    name = "reader"
    goal = Goal.MEMBERSHIP
    Config = AttackConfig
    requires = frozenset({Capability.BROADCASTS, Capability.CANDIDATES})
    views: ClassVar[list[View]] = []

    def run(self, view, rng):
        self.views.append(view)
        return MembershipClaim(rng.normal(size=len(view.candidates)))


class Updates(Reader):
    """Needs the clients' updates."""

    name = "updates"
    requires = frozenset({Capability.OTHERS_UPDATES, Capability.CANDIDATES})
    views: ClassVar[list[View]] = []


class Wild(Reader):
    """Tells something of what was trained, and nothing that is a number of what was not."""

    name = "wild"
    views: ClassVar[list[View]] = []

    def run(self, view, rng):
        self.views.append(view)
        return MembershipClaim(np.full(len(view.candidates), 0.0 if len(self.views) == 1 else np.nan))
