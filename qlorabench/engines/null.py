"""What a membership attack says where nobody trained on its candidates: the control that sees more than coins do.

Members and non-members may differ in what no match controls, and a model may favour one side without having seen
either. An adapter that was trained without the candidates shows how much of an AUC that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.engines.failures import AttackFailed
from qlorabench.engines.scene import AttackSpec, Scene, trained_scene
from qlorabench.federation.bench import Bench
from qlorabench.plugins import registry
from qlorabench.scoring.ranks import Matched
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import Challenge
from qlorabench.threats.claims import Claim, MembershipClaim
from qlorabench.threats.view import Broadcast, View

FEWEST = 10
"""Pairs below which another seed's adapter says too little of them."""
_PUBLIC = frozenset({Capability.BROADCASTS, Capability.RELEASED_ADAPTER, Capability.CANDIDATES})
"""What the bare backbone can stand in for."""

Attacking = Callable[[View], Claim]
"""Runs the attack anew, with the same coins."""


def control_of(
    bench: Bench, scene: Scene, out: Path, attack: AttackSpec, challenge: Challenge, run: Attacking
) -> tuple[Matched, str]:
    """Return how the candidates are matched, with what the attack says of them untrained, and words on that control.

    The same attack looks from the same seat at the federation of another seed, and is asked about those pairs of which
    that federation trained on neither; else, where it needs no updates, at the bare backbone. Raises AttackFailed where
    the attack fails there.
    """
    matched = Matched(challenge.pairs, challenge.strata)
    said = [challenge.uncontrolled] if challenge.uncontrolled else []
    view, kept, where = _untrained(bench, scene, out, attack, challenge)
    if view is None:
        return matched, "; ".join([*said, where])
    try:
        claim = run(view)
    except AttackFailed as error:
        raise AttackFailed(f"{where}: {error}") from error
    assert isinstance(claim, MembershipClaim)  # the goal is membership, and forms of claims were checked
    null = np.full(len(kept), np.nan)
    null[kept] = np.asarray(claim.scores, np.float64)
    return Matched(challenge.pairs, challenge.strata, null), "; ".join([*said, where])


def _untrained(
    bench: Bench, scene: Scene, out: Path, attack: AttackSpec, challenge: Challenge
) -> tuple[View | None, np.ndarray, str]:
    """Return a view of what was not trained on the candidates, which of them it is about, and what it is."""
    everybody = np.ones(len(challenge.rows), np.bool_)
    if attack.null is not None:
        other = trained_scene(bench, attack.null, out)
        kept = challenge.without(np.concatenate(other.task.client_rows))
        if kept.sum() >= 2 * FEWEST:
            game = other.game(insiders=attack.insiders)
            view = other.seen_by(attack.threat, challenge.only(kept), game, crafted=other.crafted())
            said = f"control: seed {attack.null.seed}'s adapters, {kept.sum() // 2} of {len(kept) // 2} pairs"
            return view, kept, said
    if _needs(scene, attack) <= _PUBLIC:
        return _bare_view(scene, attack, challenge), everybody, "control: the bare backbone"
    return None, everybody, "not controlled: what adapters trained without the candidates say (needs a second seed)"


def _needs(scene: Scene, attack: AttackSpec) -> frozenset[Capability]:
    """Return what the attack makes use of in its seat."""
    cls: Any = registry("attacks", base=scene.spec.base).load(attack.name)
    needed: frozenset[Capability] = cls.requires | (cls.uses & attack.threat.grants)
    return needed


def _bare_view(scene: Scene, attack: AttackSpec, challenge: Challenge) -> View:
    """Return the view of a federation that stays at its public start, for attacks that need no updates.

    The first broadcast is that start, as the system's codecs send it.
    """
    sent = scene.first_broadcast
    rounds = scene.protocol.facts.training.rounds
    facets = {
        Capability.BROADCASTS: tuple(Broadcast(r, sent.data, sent.payload, sent.state) for r in range(rounds + 1)),
        Capability.RELEASED_ADAPTER: sent.state,
        Capability.CANDIDATES: scene.task.encoded.take(challenge.rows),
    }
    granted = {c: facet for c, facet in facets.items() if c in attack.threat.grants}
    return View(attack.threat.label, attack.threat.colluders, scene.protocol.facts, scene.lab, granted)


def null_seed(seed: int, seeds: Sequence[int]) -> int | None:
    """Return the seed whose federation is the control of ``seed``: the next one of the suite, ``None`` of one alone."""
    following = seeds[(seeds.index(seed) + 1) % len(seeds)]
    return None if following == seed else following
