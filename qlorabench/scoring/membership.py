"""How well scores tell members from non-members: AUC, TPR at FPR, advantage, and leakage.

Higher scores claim membership. An example is claimed where its score lies strictly above a threshold, so
tied examples share their fate. The direction is the attack's to know: an AUC below one half is no leakage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qlorabench.scoring.intervals import Interval, clopper_pearson, interval_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]


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
    """Share of non-members claimed. Where 1/n is above the target, ``high`` shows how little n can say."""


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
) -> MembershipScores:
    """Return every membership metric with its interval. Shapes (n,); raises as :func:`auc` does."""
    ranked = _rank(scores, members=members, rng=rng)
    return MembershipScores(
        auc=_interval(ranked, _auc, rng=rng, level=level, draws=draws),
        advantage=_interval(ranked, _cross_fitted, rng=rng, level=level, draws=draws),
        operating_points=tuple(tpr_at_fpr(scores, members=members, fpr=fpr, level=level) for fpr in fprs),
        members=int(ranked.members.sum()),
        nonmembers=int((~ranked.members).sum()),
    )


def auc(scores: Floats, *, members: Bools) -> float:
    """Return the area under the ROC curve of ``scores``, shape (n,), as the Mann-Whitney statistic.

    Raises ``ValueError`` for scores that are not finite, for ``members`` that are not booleans of the same
    shape, and where there is no member or no non-member.
    """
    inside, outside = _split(scores, members)
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
    inside, outside = _split(scores, members)
    rates_of_counts = np.arange(len(outside) + 1) / len(outside)  # 0.29 * 100 is 28.999... in floats
    allowed = np.searchsorted(rates_of_counts, fpr, "right") - 1
    descending = np.append(np.sort(outside)[::-1], -np.inf)
    threshold = float(descending[allowed])
    rates = (
        clopper_pearson(int(np.count_nonzero(group > threshold)), len(group), level=level)
        for group in (inside, outside)
    )
    return OperatingPoint(fpr, threshold, *rates)


def advantage(scores: Floats, *, members: Bools, rng: np.random.Generator) -> float | None:
    """Return TPR - FPR, in [-1, 1], at thresholds that were chosen on other examples.

    The best threshold of the sample it is measured on is optimistic: above 0 even for scores that know
    nothing. Here each random half is judged at the best threshold of the other half, and the two are
    averaged, so that such scores get 0 on average. ``None`` where a half has no member or no non-member.
    Raises as :func:`auc` does.
    """
    ranked = _rank(scores, members=members, rng=rng)
    value = float(_measure(ranked, _once(ranked), _cross_fitted)[0])
    return None if math.isnan(value) else value


def coin_flip_control(nonmember_scores: Floats, *, rng: np.random.Generator) -> LabelledScores:
    """Return the same scores, shape (n,), with a random half of these non-members called members.

    The negative control: any metric of the result shows what chance alone gives on so many examples.
    Raises ``ValueError`` for scores that are not finite, and for fewer than two of them.
    """
    scores = _finite(nonmember_scores)
    if len(scores) < 2:
        raise ValueError(f"a coin flip needs two non-members, found {len(scores)}")
    return LabelledScores(scores, _halve(np.ones(len(scores), np.bool_), rng))


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
) -> Interval:
    """Return the leakage of the AUC over the coin-flip control, with its interval.

    The control is the mean over ``flips`` coin flips, as a single one is noisier than the AUC itself. The
    coins stay with their examples, and examples are resampled once for the value and the control, so the
    interval holds the noise of both and what they share. For scores that are independent of membership
    the lower end is above 0 in about (1 - level)/2 of all samples; the value, clipped at 0, is above 0 in
    half of them: judge by the lower end. Raises as :func:`auc` does, and ``ValueError`` for no flips.
    """
    ranked = _rank(scores, members=members, rng=rng, flips=_positive(flips, what="flips"))
    return _interval(ranked, _auc, rng=rng, level=level, draws=draws)


def advantage_leakage(
    scores: Floats,
    *,
    members: Bools,
    rng: np.random.Generator,
    flips: int = 16,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Return the leakage of the cross-fitted advantage, with its interval; as :func:`auc_leakage`.

    Halves, like coins, stay with their examples: were they drawn after resampling, copies of an example
    would stand on both sides, and the threshold would be judged on what chose it.
    """
    ranked = _rank(scores, members=members, rng=rng, flips=_positive(flips, what="flips"))
    return _interval(ranked, _cross_fitted, rng=rng, level=level, draws=draws)


@dataclass(frozen=True)
class _Ranked:
    """Examples by ascending score. A resample of them is a row of counts, shape (draws, n)."""

    members: Bools
    halves: Bools
    """Who is in the second of the two halves of the cross-fit; shape (n,)."""
    coins: Bools
    """Which non-members each coin flip calls members; shape (flips, n)."""
    starts: NDArray[np.intp]
    """Where each distinct score begins; shape (k,)."""

    def tally(self, counts: Counts, chosen: Bools) -> Counts:
        """Return how often each distinct score was drawn among ``chosen``: shape (draws, k)."""
        return np.asarray(np.add.reduceat(np.where(chosen, counts, 0), self.starts, axis=1))


_Metric = Callable[[_Ranked, Counts, Bools, Bools], Floats]
"""From counts, shape (draws, n), and who is inside and outside, shape (n,), to values, shape (draws,)."""


def _rank(scores: Any, *, members: Any, rng: np.random.Generator, flips: int = 0) -> _Ranked:
    _split(scores, members)
    order = np.argsort(scores, kind="stable")
    ascending, flags = np.asarray(scores, np.float64)[order], np.asarray(members)[order]
    halves = _halve(flags, rng) | _halve(~flags, rng)
    quarters = [_halve(~flags & halves, rng) | _halve(~flags & ~halves, rng) for _ in range(flips)]
    coins = np.array(quarters, np.bool_).reshape(flips, len(flags))
    starts = np.flatnonzero(np.append(True, ascending[1:] > ascending[:-1]))
    return _Ranked(flags, halves, coins, starts)


def _interval(ranked: _Ranked, metric: _Metric, *, rng: np.random.Generator, level: float, draws: int) -> Interval:
    strata = ranked.members * 2 + (ranked.halves if metric is _cross_fitted else 0)
    sizes = np.unique(strata, return_counts=True)[1]
    batches = _resamples(strata, rng=rng, draws=_positive(draws, what="draws"))
    replicates = np.concatenate([_measure(ranked, counts, metric) for counts in batches])
    value = float(_measure(ranked, _once(ranked), metric)[0])
    return interval_of(replicates, value=value, n=len(strata), fewest=int(sizes.min()), level=level)


def _resamples(strata: NDArray[np.int64], *, rng: np.random.Generator, draws: int) -> Iterator[Counts]:
    """Yield counts of resamples within each stratum, in batches of some ten megabytes."""
    batch = max(1, 1_000_000 // len(strata))
    for start in range(0, draws, batch):
        counts = np.empty((min(batch, draws - start), len(strata)), np.int64)
        for stratum in np.unique(strata):
            where = np.flatnonzero(strata == stratum)
            chances = np.full(len(where), 1 / len(where))
            counts[:, where] = rng.multinomial(len(where), chances, size=len(counts))
        yield counts


def _once(ranked: _Ranked) -> Counts:
    return np.ones((1, len(ranked.members)), np.int64)


def _measure(ranked: _Ranked, counts: Counts, metric: _Metric) -> Floats:
    """Return the metric, or its leakage over the coins where there are some; NaN where undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = metric(ranked, counts, ranked.members, ~ranked.members)
        if not len(ranked.coins):
            return value
        controls = np.stack([metric(ranked, counts, c, ~ranked.members & ~c) for c in ranked.coins])
        defined = ~np.isnan(controls)
        control = np.where(defined, controls, 0).sum(axis=0) / defined.sum(axis=0)
        share = np.clip((value - control) / (1 - control), 0.0, 1.0)
        return np.where(control < 1, share, np.nan)


def _auc(ranked: _Ranked, counts: Counts, inside: Bools, outside: Bools) -> Floats:
    higher, lower = ranked.tally(counts, inside), ranked.tally(counts, outside)
    beaten = np.cumsum(lower, axis=1) - lower / 2
    return np.asarray((higher * beaten).sum(axis=1) / (higher.sum(axis=1) * lower.sum(axis=1)))


def _cross_fitted(ranked: _Ranked, counts: Counts, inside: Bools, outside: Bools) -> Floats:
    gains = [
        _gains(ranked.tally(counts, inside & half), ranked.tally(counts, outside & half))
        for half in (ranked.halves, ~ranked.halves)
    ]
    rows = np.arange(len(counts))
    return np.asarray((gains[0][rows, _best(gains[1])] + gains[1][rows, _best(gains[0])]) / 2)


def _gains(higher: Counts, lower: Counts) -> Floats:
    """Return TPR - FPR of claiming each distinct score and all above it: shape (draws, k)."""
    spared = np.cumsum(lower, axis=1) - lower
    missed = np.cumsum(higher, axis=1) - higher
    return np.asarray(spared / lower.sum(axis=1, keepdims=True) - missed / higher.sum(axis=1, keepdims=True))


def _best(gains: Floats) -> NDArray[np.intp]:
    """Return the middle of the first run of largest gains, half way between the examples that set it."""
    top = gains == gains.max(axis=1, keepdims=True)
    first = top.argmax(axis=1)
    after = ~top & (np.arange(gains.shape[1]) > first[:, None])
    end = np.where(after.any(axis=1), after.argmax(axis=1), gains.shape[1])
    return np.asarray((first + end) // 2)


def _halve(among: Bools, rng: np.random.Generator) -> Bools:
    """Mark a random half of those ``among``; of an odd number, a coin decides which half is larger."""
    marked, size = np.zeros(len(among), np.bool_), int(among.sum())
    marked[among] = rng.permutation(size) < (size + rng.integers(2)) // 2
    return marked


def _split(scores: Any, members: Any) -> tuple[Floats, Floats]:
    values, flags = _finite(scores), np.asarray(members)
    if flags.shape != values.shape or flags.dtype != np.bool_:
        raise ValueError(f"need {values.size} booleans as members, found {flags.shape} {flags.dtype}")
    if flags.all() or not flags.any():
        raise ValueError(f"need members and non-members, found {flags.sum()} members among {flags.size}")
    return values[flags], values[~flags]


def _finite(scores: Any) -> Floats:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores must be of shape (n,), found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} scores are not finite")
    return values


def _positive(count: int, *, what: str) -> int:
    if count < 1:
        raise ValueError(f"{what} must be at least 1, found {count}")
    return count
