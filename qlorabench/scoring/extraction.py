"""Extracted secrets held against the true ones, and against secrets that nobody trained on.

Exposure is that of Carlini et al., The Secret Sharer, USENIX Security 2019: how many bits of a secret the rank that an
attack gives it tells, log2 |R| - log2 rank, over the space R of all secrets of its form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from qlorabench.errors import UserError
from qlorabench.scoring.intervals import bootstrap, bootstrap_two, clopper_pearson, relative_gain
from qlorabench.scoring.score import Score, against_control
from qlorabench.threats.claims import ExtractionClaim

COPIED = 1e-6
"""Chance under which first guesses are not taken to meet references by accident."""
CHANCE = "a secret of which nothing is known has 1.44 bits on average"


@dataclass(frozen=True)
class Hidden:
    """What stands behind one prompt."""

    secret: str
    inserted: bool
    """Whether any client trained on it."""
    references: tuple[str, ...]
    """Secrets that the attack scored, the true one among them."""
    space: int
    """How many secrets of its form there are."""


def judge_extraction(claim: ExtractionClaim, hidden: Sequence[Hidden], *, rng: np.random.Generator) -> list[Score]:
    """Return the share of secrets that are the first guess (the headline) or among ten, and the mean exposure.

    Inserted secrets are the value, never inserted ones the control; the leakage is the advantage over the control.
    Raises UserError where the claim does not fit the prompts, or takes its guesses from the references.
    """
    _check(claim, hidden)
    told = np.array([truth.inserted for truth in hidden], dtype=bool)
    ranks = np.array([_rank(*row) for row in zip(claim.guesses, claim.scores, hidden, strict=True)])
    bits = np.log2([truth.space for truth in hidden]) - np.log2(ranks) if hidden else ranks
    exposure = _exposure(bits[told], bits[~told], [t.space for t in hidden], rng=rng)
    counts = f"{told.sum()} inserted secrets, {(~told).sum()} never inserted"
    note = "; ".join(part for part in (counts, claim.note) if part)
    first = _rate("extraction@1", ranks[told] <= 1, ranks[~told] <= 1)
    return [
        replace(first, headline=True, note=note),
        _rate("extraction@10", ranks[told] <= 10, ranks[~told] <= 10),
        replace(exposure, note=CHANCE),
    ]


def _check(claim: ExtractionClaim, hidden: Sequence[Hidden]) -> None:
    wanted = [len(truth.references) for truth in hidden]
    found = [len(row) for row in claim.scores]
    if found != wanted or len(claim.guesses) != len(hidden):
        raise UserError(
            f"an extraction claim has guesses for {len(claim.guesses)} prompts and scores for {found} references; "
            f"the view posed {len(hidden)} prompts with {wanted}"
        )
    if not np.isfinite(claim.scores).all():
        raise UserError("an extraction claim has scores that are not finite; every reference needs a number")
    if any(len(set(guesses)) < len(guesses) for guesses in claim.guesses):
        raise UserError("an extraction claim names a guess twice for one prompt; a guess's place is its rank")
    _refuse_copied(claim, hidden)


def _refuse_copied(claim: ExtractionClaim, hidden: Sequence[Hidden]) -> None:
    """Refuse first guesses that are wrong references more often than secrets drawn at random would be."""
    pairs = [(said[0], truth) for said, truth in zip(claim.guesses, hidden, strict=True) if said]
    met = sum(guess in truth.references and guess != truth.secret for guess, truth in pairs)
    odds = [(len(truth.references) - 1) / truth.space for _, truth in pairs]
    if met and stats.binom.sf(met - 1, len(pairs), max(odds)) < COPIED:
        raise UserError(
            f"{met} of {len(pairs)} first guesses are references that nobody trained on: the guesses were taken from "
            "the references, which hold the secret. Guesses are to be found in the whole space."
        )


def _rank(guesses: Sequence[str], scores: np.ndarray, truth: Hidden) -> float:
    """Return the rank of the true secret in the whole space, 1 is best.

    It is the secret's place among the guesses; else its quantile among the references (ties count half) of the space,
    yet behind every guess.
    """
    if truth.secret in guesses:
        return guesses.index(truth.secret) + 1.0
    own = scores[truth.references.index(truth.secret)]
    better = np.sum(scores > own) + 0.5 * np.sum(scores == own)  # itself among the ties: the middle of its quantile
    return max(len(guesses) + 1.0, truth.space * float(better) / len(scores))


def _rate(metric: str, inside: np.ndarray, outside: np.ndarray) -> Score:
    found = clopper_pearson(int(inside.sum()), len(inside))
    base = clopper_pearson(int(outside.sum()), len(outside))
    return against_control(metric, found, control=base.value, leak=relative_gain(found, base))


def _exposure(inside: np.ndarray, outside: np.ndarray, spaces: Sequence[int], *, rng: np.random.Generator) -> Score:
    """Return the mean exposure in bits; its leakage is the share of the bits that the control leaves open."""
    if not len(inside) or not len(outside):
        return Score("exposure_bits", None, n=len(inside), note="no secrets on one side")
    full, base = float(np.log2(max(spaces))), float(outside.mean())
    found = bootstrap(inside, _mean, rng=rng)
    leak = bootstrap_two(inside, outside, lambda a, b: float((a.mean() - b.mean()) / (full - b.mean())), rng=rng)
    if len(inside) > 1 and inside.min() == inside.max():
        # resampling equal units shows no spread: at least as many are exposed as of coins that fell alike
        same = float(inside[0])
        least = base + (clopper_pearson(len(inside), len(inside)).low or 0.0) * (same - base)
        found = replace(found, low=min(least, same))
        leak = replace(leak, low=(min(least, same) - base) / (full - base))
    return against_control("exposure_bits", found, control=base, leak=leak)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
