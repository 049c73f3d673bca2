"""White-box verification: which of the candidates the clients' updates were computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import Layout
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, MembershipClaim
from qlorabench.threats.view import Update, View

from ._alignment import Moments, alignment, cosine, regression
from ._dictionary import Floats
from ._gradients import example_gradients

_PART = 16
"""Candidates in one backward pass."""
_STATISTICS: dict[str, Callable[[Sequence[Moments]], Floats]] = {
    "regression": regression,
    "alignment": alignment,
    "cosine": cosine,
}


class CandidateTestConfig(AttackConfig):
    """What a candidate's gradient is held against, and how often."""

    statistic: Literal["regression", "alignment", "cosine"] = Field(
        default="regression",
        description="`regression`: the candidate's part in the ridge regression of the update on all candidates' "
        "gradients; `alignment`: matched filter, one candidate at a time; `cosine`: without the filter's scaling",
    )
    rounds: int = Field(default=4, ge=1, le=10_000, description="rounds that are looked at, spread evenly")


class CandidateTest(Attack[CandidateTestConfig]):
    """An update is close to a sum of its examples' gradients: is the candidate's gradient in it?

    The gradient of every candidate at the state that was broadcast is held against every client's update of that
    round. Gradient cosine (Li et al. 2022) and the matched filter that audits of DP-SGD use take one candidate at a
    time, and the other examples of the batch drown it. The regression is ours: all candidates explain the update
    together, with a ridge by marginal likelihood, so that what candidates share (their label, common words) is not
    counted for each. Under strong noise it becomes the matched filter.

    Gradients are clipped where DP-SGD clips them, and tensors are put in units of the root mean square of their
    updates. A candidate could be anyone's: scores are standardised over the candidates by median and median absolute
    deviation, and the largest over clients counts. Local steps are taken as if they had started from the broadcast,
    which is a first-order approximation, and AdamW as if it were SGD. It holds 4 bytes for each candidate and
    travelling element.

    The texts are given: this verifies, it reconstructs nothing.
    """

    name: ClassVar[str] = "candidate-test"
    goal: ClassVar[Goal] = Goal.VERIFICATION
    Config: ClassVar[type[AttackConfig]] = CandidateTestConfig
    requires: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.OTHERS_UPDATES, Capability.BROADCASTS, Capability.CANDIDATES}
    )
    paper: ClassVar[str] = (
        "Li et al., Effective Passive Membership Inference Attacks in Federated Learning, 2022; "
        "Nasr et al., Tight Auditing of Differentially Private Machine Learning, USENIX Security 2023"
    )

    def run(self, view: View, rng: np.random.Generator) -> MembershipClaim:
        """Return one score a candidate, in robust standard deviations; higher means more likely trained on."""
        chosen = _spread(view.facts.training.rounds, self.config.rounds)
        rounds = [_moments(view, round) for round in chosen]
        scores = _STATISTICS[self.config.statistic](rounds)
        said = f"{self.config.statistic} over {len(chosen)} of {view.facts.training.rounds} rounds"
        return MembershipClaim(_standardised(scores).max(0), note=f"{said}, {len(scores)} clients")


def _spread(rounds: int, most: int) -> list[int]:
    """Return at most ``most`` of ``rounds``, the first and the last among them."""
    return sorted({int(round) for round in np.linspace(0, rounds - 1, min(most, rounds)).round()})


def _moments(view: View, round: int) -> Moments:
    layout = view.facts.travelling
    flat = torch.stack([_finite(layout, update) for update in view.updates if _looked_at(view, update, round)])
    weights = _weights(layout, flat)
    directions = _directions(view, round) * (weights * _rates(view.facts))
    updates = flat * weights
    return Moments(
        (directions @ directions.T).double().numpy(),
        (updates @ directions.T).double().numpy(),
        updates.double().square().sum(1).numpy(),
        int((weights > 0).sum()),
    )


def _looked_at(view: View, update: Update, round: int) -> bool:
    return update.round == round and update.client >= view.colluders


def _finite(layout: Layout, update: Update) -> Tensor:
    """Return the flat update, (P,); zero where any of it is not finite."""
    values = layout.flatten(update.state)
    return values if bool(torch.isfinite(values).all()) else torch.zeros_like(values)


def _weights(layout: Layout, updates: Tensor) -> Tensor:
    """Return one over the root mean square of each element's tensor in ``updates`` (C, P), as (P,); 0 for 0."""
    sizes = torch.cat(
        [part.square().mean().sqrt().expand(part.shape[1]) for part in torch.split(updates, layout.lengths, 1)]
    )
    return torch.where(sizes > 0, 1 / sizes, 0.0)


def _rates(facts: PublicFacts) -> Tensor:
    """Return the learning rate of each travelling element, (P,)."""
    optimizer = facts.training.optimizer
    head = optimizer.lr if optimizer.head_lr is None else optimizer.head_lr
    rates = [head if spec.role == "head" else optimizer.lr for spec in facts.travelling]
    return torch.repeat_interleave(torch.tensor(rates), torch.tensor(facts.travelling.lengths))


def _directions(view: View, round: int) -> Tensor:
    """Return minus the candidates' gradients at the broadcast of ``round``, (n, P), clipped where DP-SGD clips."""
    layout, data = view.facts.travelling, view.candidates
    model = view.lab.mount(next(message.state for message in view.broadcasts if message.round == round))
    directions = torch.empty(len(data), layout.count)
    order = np.argsort(data.lengths, kind="stable")
    for part in (order[i : i + _PART] for i in range(0, len(order), _PART)):
        gradients = example_gradients(model, data, part, layout.names)
        directions[torch.from_numpy(part)] = -torch.cat([gradients[name].flatten(1) for name in layout.names], 1)
    private = view.facts.defense("dp-sgd")
    if private is None:
        return directions
    lengths = directions.norm(dim=1, keepdim=True)
    clipped: Tensor = directions * (float(private.config["clip_norm"]) / lengths).clamp(max=1)
    return clipped


def _standardised(scores: Floats) -> Floats:
    """Return scores (C, n) less each client's median, over its median absolute deviation; 0 where that is 0."""
    apart = scores - np.median(scores, axis=1, keepdims=True)
    spread = np.median(np.abs(apart), axis=1, keepdims=True)
    standardised: Floats = np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0)
    return standardised
