"""How well scores tell members from non-members: AUC, TPR at FPR, advantage, and leakage.

Higher scores claim membership. An example is claimed where its score lies strictly above a threshold, so
tied examples share their fate. The direction is the attack's to know: an AUC below one half is no leakage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qlorabench.scoring.intervals import Interval, clopper_pearson
from qlorabench.scoring.ranks import (
    Bools,
    Floats,
    Matched,
    cross_fitted,
    finite,
    halve_within,
    measure,
    once,
    positive,
    rank,
    ranked_auc,
    resampled,
    split,
)
from qlorabench.scoring.thresholds import exposed_share, rate_limit


class LabelledScores(NamedTuple):
    """Scores, shape (n,), and who counts as a member, shape (n,)."""

    scores: Floats
    members: Bools


@dataclass(frozen=True)
class OperatingPoint:
    """The claims at a threshold that keeps the false positive rate of the scored sample within a target."""

    target: float
    """The false positive rate asked for, in [0, 1]."""
    threshold: float
    """Claimed is who scores strictly above."""
    tpr: Interval
    """Share of members claimed; Clopper-Pearson, conditional on the threshold."""
    fpr: Interval
    """Share of non-members claimed. ``high`` bounds the true rate of a threshold set by looking at them: where 1/n is
    above the target, it shows how little n can say."""
    leakage: Interval
    """(TPR - FPR) / (1 - FPR), with the noise of both groups and of the threshold; see `exposed_share`."""


@dataclass(frozen=True)
class MembershipScores:
    """What a set of membership scores gives away."""

    auc: Interval
    """Chance that a member outscores a non-member, ties counting half; bootstrap over examples."""
    advantage: Interval
    """TPR - FPR at a threshold chosen on the other half; bootstrap over examples."""
    operating_points: tuple[OperatingPoint, ...]
    """One for every false positive rate asked for."""
    members: int
    nonmembers: int


def membership_scores(
    scores: Floats,
    *,
    members: Bools,
    rng: np.random.Generator,
    fprs: Sequence[float] = (0.001, 0.01, 0.1),
    level: float = 0.95,
    draws: int = 1000,
    matched: Matched | None = None,
) -> MembershipScores:
    """Return every membership metric with its interval. Shapes (n,); raises as :func:`auc` does.

    Where examples are ``matched``, pairs are resampled whole.
    """
    ranked = rank(scores, members=members, rng=rng, matched=matched)
    return MembershipScores(
        auc=resampled(ranked, ranked_auc, rng=rng, level=level, draws=draws),
        advantage=resampled(ranked, cross_fitted, rng=rng, level=level, draws=draws),
        operating_points=tuple(tpr_at_fpr(scores, members=members, fpr=fpr, level=level) for fpr in fprs),
        members=int(ranked.members.sum()),
        nonmembers=int((~ranked.members).sum()),
    )


def auc(scores: Floats, *, members: Bools) -> float:
    """Return the area under the ROC curve of ``scores``, shape (n,), as the Mann-Whitney statistic.

    Raises ``ValueError`` for scores that are not finite, for ``members`` that are not booleans of the same
    shape, and where there is no member or no non-member.
    """
    inside, outside = split(scores, members)
    ordered = np.sort(outside)
    below, up_to = np.searchsorted(ordered, inside, "left"), np.searchsorted(ordered, inside, "right")
    return float((below + up_to).sum() / (2 * len(inside) * len(outside)))


def tpr_at_fpr(scores: Floats, *, members: Bools, fpr: float, level: float = 0.95) -> OperatingPoint:
    """Return the claims at the lowest threshold that claims at most ``fpr`` of the non-members.

    Nothing is interpolated: the threshold is the score of a non-member, the highest one where ``fpr``
    allows for less than one of them, and -inf where it allows for all. Raises as :func:`auc` does, and
    ``ValueError`` for ``fpr`` outside [0, 1].
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr must lie in [0, 1], found {fpr}")
    inside, outside = split(scores, members)
    rates_of_counts = np.arange(len(outside) + 1) / len(outside)  # 0.29 * 100 is 28.999... in floats
    allowed = np.searchsorted(rates_of_counts, fpr, "right") - 1
    descending = np.append(np.sort(outside)[::-1], -np.inf)
    threshold = float(descending[allowed])
    hits, false = (int(np.count_nonzero(group > threshold)) for group in (inside, outside))
    tpr, found = clopper_pearson(hits, len(inside), level=level), clopper_pearson(false, len(outside), level=level)
    limit = rate_limit(int(allowed), len(outside), level=level)
    if allowed == len(outside):
        leak = Interval(None, None, None, len(inside) + len(outside), "all are claimed: there is nothing to gain")
    else:
        leak = exposed_share(hits, len(inside), allowed=int(allowed), nonmembers=len(outside), level=level)
        gained = leakage(hits / len(inside), false / len(outside))
        leak = replace(leak, value=gained, high=max(leak.high or 0.0, gained or 0.0))  # ties let fewer pass than may
    return OperatingPoint(fpr, threshold, tpr, replace(found, high=limit), leak)


def advantage(scores: Floats, *, members: Bools, rng: np.random.Generator) -> float | None:
    """Return TPR - FPR, in [-1, 1], at thresholds that were chosen on other examples.

    The best threshold of the sample it is measured on is optimistic: above 0 even for scores that know
    nothing. Here each random half is judged at the best threshold of the other half, and the two are
    averaged, so that such scores get 0 on average. ``None`` where a half has no member or no non-member.
    Raises as :func:`auc` does.
    """
    ranked = rank(scores, members=members, rng=rng)
    value = float(measure(ranked, once(ranked), cross_fitted)[0])
    return None if math.isnan(value) else value


def coin_flip_control(
    nonmember_scores: Floats, *, rng: np.random.Generator, strata: NDArray[np.int64] | None = None
) -> LabelledScores:
    """Return the same scores, shape (n,), with a random half of these non-members called members.

    The negative control: any metric of the result shows what chance alone gives on so many examples. Where there are
    ``strata``, (n,), it is half of each.
    Raises ``ValueError`` for scores that are not finite, and for fewer than two of them.
    """
    scores = finite(nonmember_scores)
    if len(scores) < 2:
        raise ValueError(f"a coin flip needs two non-members, found {len(scores)}")
    return LabelledScores(scores, halve_within(np.ones(len(scores), np.bool_), strata, rng))


def leakage(value: float, control: float, *, best: float = 1.0) -> float | None:
    """Return how much of the way from ``control`` to ``best`` a metric goes, clipped to [0, 1].

    ``None`` where the control is at ``best`` already, so that the metric has no room to show anything.
    """
    if control >= best:
        return None
    return min(max((value - control) / (best - control), 0.0), 1.0)


def auc_leakage(
    scores: Floats,
    *,
    members: Bools,
    rng: np.random.Generator,
    flips: int = 16,
    level: float = 0.95,
    draws: int = 1000,
    matched: Matched | None = None,
) -> Interval:
    """Return the leakage of the AUC over the coin-flip control, with its interval.

    The control is the mean over ``flips`` coin flips, as a single one is noisier than the AUC itself. The
    coins stay with their examples, and examples are resampled once for the value and the control, so the
    interval holds the noise of both and what they share. For scores that are independent of membership
    the lower end is above 0 in about (1 - level)/2 of all samples; the value, clipped at 0, is above 0 in
    half of them: judge by the lower end. Raises as :func:`auc` does, and ``ValueError`` for no flips.

    Where examples are ``matched``, coins fall within what a pair has in common and pairs are resampled whole. Where
    there is a ``matched.null``, the control of each resample is its AUC there, if that is more than the coins'.
    """
    ranked = rank(scores, members=members, rng=rng, flips=positive(flips, what="flips"), matched=matched)
    return resampled(ranked, ranked_auc, rng=rng, level=level, draws=draws)


def advantage_leakage(
    scores: Floats,
    *,
    members: Bools,
    rng: np.random.Generator,
    flips: int = 16,
    level: float = 0.95,
    draws: int = 1000,
    matched: Matched | None = None,
) -> Interval:
    """Return the leakage of the cross-fitted advantage, with its interval; as :func:`auc_leakage`.

    Halves, like coins, stay with their examples: were they drawn after resampling, copies of an example
    would stand on both sides, and the threshold would be judged on what chose it.
    """
    ranked = rank(scores, members=members, rng=rng, flips=positive(flips, what="flips"), matched=matched)
    return resampled(ranked, cross_fitted, rng=rng, level=level, draws=draws)
