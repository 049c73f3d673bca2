"""What consecutive broadcasts give away of the clients outside the seat: attacks on a server's view, from below."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, MembershipClaim, ReconstructionClaim
from qlorabench.threats.view import View

from ._residual import outsiders_view
from .candidate_test import CandidateTest, CandidateTestConfig
from .span import Span, SpanConfig


class BroadcastDifferenceConfig(AttackConfig):
    """The attack that is run on the outsiders' mean update."""

    span: SpanConfig = Field(default=SpanConfig(), description="thresholds of the span attack")


class BroadcastDifference(Attack[BroadcastDifferenceConfig]):
    """Two broadcasts in a row differ by the mean of all updates; less the seat's own, by that of the outsiders.

    K - 1 of K clients are left with the last one's update, at float32 precision where broadcasts are exact. What
    quantization adds is known up to the cells of both messages, and is multiplied by the total weight over the
    outsiders'. The span attack reads the remainder as if it were the update of one client and knows that noise: at
    few bits it says that it sees nothing. What it finds is claimed of every outsider, for nobody knows whose it is.
    """

    name: ClassVar[str] = "broadcast-difference"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = BroadcastDifferenceConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.BROADCASTS})
    uses: ClassVar[frozenset[Capability]] = frozenset({Capability.OWN_UPDATES})
    paper: ClassVar[str] = "Petrov et al., DAGER, NeurIPS 2024; Melis et al., IEEE S&P 2019 (differences of snapshots)"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return why updates hide from the span attack whoever reads them, else ``None``."""
        return Span(self.config.span).blind(facts)

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return what the outsiders' updates show, for each of them."""
        claim = Span(self.config.span).run(outsiders_view(view), rng)
        outsiders = range(view.colluders, view.facts.clients)
        texts = tuple(replace(said, client=client) for said in claim.clients for client in outsiders)
        return ReconstructionClaim(texts, note=f"{claim.note}; {len(outsiders)} outsiders as one")


class DifferenceTest(Attack[CandidateTestConfig]):
    """The candidate test on the differences of broadcasts: which candidates are in the outsiders' mean update.

    A test needs less than a reading: it adds up many small agreements, where the span attack needs each direction to
    rise above the codec's noise.
    """

    name: ClassVar[str] = "difference-test"
    goal: ClassVar[Goal] = Goal.VERIFICATION
    Config: ClassVar[type[AttackConfig]] = CandidateTestConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.BROADCASTS, Capability.CANDIDATES})
    uses: ClassVar[frozenset[Capability]] = frozenset({Capability.OWN_UPDATES})
    paper: ClassVar[str] = CandidateTest.paper

    def run(self, view: View, rng: np.random.Generator) -> MembershipClaim:
        """Return one score a candidate; higher means more likely trained on by some outsider."""
        return CandidateTest(self.config).run(outsiders_view(view), rng)
