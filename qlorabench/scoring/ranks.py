"""Resampling of scored examples by rank: counts of draws in place of copies, so that a thousand resamples are cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlorabench.scoring.intervals import Interval, interval_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Matched:
    """Members and non-members in pairs that are alike: what they share is no sign of membership."""

    pairs: NDArray[np.int64]
    """Number of the pair of each example, from 0 on, a member and a non-member in each; shape (n,)."""
    strata: NDArray[np.int64]
    """Number of what a pair has in common: shape (n,)."""
    null: Floats | None = None
    """What the same attack says of each example where none was trained on, NaN where it was not asked (whole pairs);
    shape (n,)."""


@dataclass(frozen=True)
class Ranked:
    """Examples by ascending score. A resample of them is how often each unit was drawn: shape (draws, units)."""

    members: Bools
    halves: Bools
    """Who is in the second of the two halves of the cross-fit; shape (n,)."""
    coins: Bools
    """Which non-members each coin flip calls members; shape (flips, n)."""
    starts: NDArray[np.intp]
    """Where each distinct score begins; shape (k,)."""
    units: NDArray[np.intp]
    """Number of the unit each example belongs to: a pair, or itself alone; shape (n,)."""
    null: Ranked | None = None
    """The same examples, or some of them, by the scores of an attack on what was not trained on them."""

    def tally(self, counts: Counts, chosen: Bools) -> Counts:
        """Return how often each distinct score was drawn among ``chosen``: shape (draws, k)."""
        return np.asarray(np.add.reduceat(np.where(chosen, counts[:, self.units], 0), self.starts, axis=1))


Metric = Callable[[Ranked, Counts, Bools, Bools], Floats]
"""From counts of units, shape (draws, units), and who is inside and outside, shape (n,), to values, shape (draws,)."""


def rank(
    scores: Any, *, members: Any, rng: np.random.Generator, flips: int = 0, matched: Matched | None = None
) -> Ranked:
    """Return examples with ``scores`` (n,) ranked, halved for the cross-fit, and flipped ``flips`` times.

    Examples that are ``matched`` stay together: both of a pair are in one half and in the same resamples, and coins
    fall within what pairs have in common.
    """
    split(scores, members)
    ascending = np.argsort(scores, kind="stable")
    flags, units, strata = np.asarray(members)[ascending], np.arange(len(ascending)), None
    if matched is None:
        halves = halve(flags, rng) | halve(~flags, rng)
    else:
        units, strata = matched.pairs[ascending], matched.strata[ascending]
        halves = halve(np.ones(int(units.max()) + 1, np.bool_), rng)[units]
    coins = np.array([_coins(flags, halves, strata, rng) for _ in range(flips)], np.bool_).reshape(flips, len(flags))

    def by(values: Floats, null: Ranked | None = None) -> Ranked:
        order = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
        starts = np.flatnonzero(np.append(True, values[order][1:] > values[order][:-1]))
        return Ranked(flags[order], halves[order], coins[:, order], starts, units[order], null)

    null = None if matched is None or matched.null is None else by(matched.null[ascending])
    return by(np.asarray(scores, np.float64)[ascending], null)


def _coins(flags: Bools, halves: Bools, strata: NDArray[np.int64] | None, rng: np.random.Generator) -> Bools:
    """Mark a random half of the non-members (of each stratum) in each half of the cross-fit."""
    return halve_within(~flags & halves, strata, rng) | halve_within(~flags & ~halves, strata, rng)


def halve_within(among: Bools, strata: NDArray[np.int64] | None, rng: np.random.Generator) -> Bools:
    """Mark a random half of those ``among``: of each of the ``strata``, and of those left over at odd numbers."""
    if strata is None:
        return halve(among, rng)
    marked, left = np.zeros(len(among), np.bool_), np.zeros(len(among), np.bool_)
    for stratum in np.unique(strata[among]):
        own = rng.permutation(np.flatnonzero(among & (strata == stratum)))
        marked[own[: len(own) // 2]] = True
        left[own[len(own) // 2 * 2 :]] = True
    return marked | halve(left, rng)


def resampled(ranked: Ranked, metric: Metric, *, rng: np.random.Generator, level: float, draws: int) -> Interval:
    """Return ``metric`` with its interval over ``draws`` resamples of the units."""
    sizes = np.bincount(ranked.units)
    strata = np.zeros(len(sizes), np.int64)
    strata[ranked.units] = ranked.members * 2 * (sizes.max() == 1)  # single examples: members and others on their own
    if metric is cross_fitted:
        strata[ranked.units] += ranked.halves
    batches = _resamples(strata, rng=rng, draws=positive(draws, what="draws"))
    replicates = np.concatenate([measure(ranked, counts, metric) for counts in batches])
    value = float(measure(ranked, once(ranked), metric)[0])
    asked = slice(None) if ranked.null is None else np.unique(ranked.null.units)
    fewest = int(np.unique(strata[asked], return_counts=True)[1].min())
    return interval_of(replicates, value=value, n=len(ranked.units), fewest=fewest, level=level)


def _resamples(strata: NDArray[np.int64], *, rng: np.random.Generator, draws: int) -> Iterator[Counts]:
    """Yield counts of resamples within each stratum of units, in batches of some ten megabytes."""
    batch = max(1, 1_000_000 // len(strata))
    for start in range(0, draws, batch):
        counts = np.empty((min(batch, draws - start), len(strata)), np.int64)
        for stratum in np.unique(strata):
            where = np.flatnonzero(strata == stratum)
            chances = np.full(len(where), 1 / len(where))
            counts[:, where] = rng.multinomial(len(where), chances, size=len(counts))
        yield counts


def once(ranked: Ranked) -> Counts:
    """Return the counts of the sample itself, (1, units)."""
    return np.ones((1, int(ranked.units.max()) + 1), np.int64)


def measure(ranked: Ranked, counts: Counts, metric: Metric) -> Floats:
    """Return the metric, or its leakage over its control where there are coins; NaN where undefined.

    The control is the mean over the coins, or what the metric is on what was not trained on the examples, where that
    is more.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        value = metric(ranked, counts, ranked.members, ~ranked.members)
        if not len(ranked.coins):
            return value
        controls = np.stack([metric(ranked, counts, c, ~ranked.members & ~c) for c in ranked.coins])
        defined = ~np.isnan(controls)
        control = np.where(defined, controls, 0).sum(axis=0) / defined.sum(axis=0)
        if ranked.null is not None:
            null = ranked.null
            control = np.fmax(control, metric(null, counts, null.members, ~null.members))
        share = np.clip((value - control) / (1 - control), 0.0, 1.0)
        return np.where(control < 1, share, np.nan)


def ranked_auc(ranked: Ranked, counts: Counts, inside: Bools, outside: Bools) -> Floats:
    """Return the AUC of each resample, (draws,)."""
    higher, lower = ranked.tally(counts, inside), ranked.tally(counts, outside)
    beaten = np.cumsum(lower, axis=1) - lower / 2
    return np.asarray((higher * beaten).sum(axis=1) / (higher.sum(axis=1) * lower.sum(axis=1)))


def cross_fitted(ranked: Ranked, counts: Counts, inside: Bools, outside: Bools) -> Floats:
    """Return TPR - FPR of each half at the best threshold of the other, averaged, (draws,)."""
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


def halve(among: Bools, rng: np.random.Generator) -> Bools:
    """Mark a random half of those ``among``; of an odd number, a coin decides which half is larger."""
    marked, size = np.zeros(len(among), np.bool_), int(among.sum())
    marked[among] = rng.permutation(size) < (size + rng.integers(2)) // 2
    return marked


def split(scores: Any, members: Any) -> tuple[Floats, Floats]:
    """Return the scores of members and of non-members; raises ValueError for what cannot be judged."""
    values, flags = finite(scores), np.asarray(members)
    if flags.shape != values.shape or flags.dtype != np.bool_:
        raise ValueError(f"need {values.size} booleans as members, found {flags.shape} {flags.dtype}")
    if flags.all() or not flags.any():
        raise ValueError(f"need members and non-members, found {flags.sum()} members among {flags.size}")
    return values[flags], values[~flags]


def finite(scores: Any) -> Floats:
    """Return ``scores`` as float64 of shape (n,); raises ValueError for another shape or values that are not finite."""
    values = np.asarray(scores, np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores must be of shape (n,), found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} scores are not finite")
    return values


def positive(count: int, *, what: str) -> int:
    """Return ``count``; raises ValueError below 1."""
    if count < 1:
        raise ValueError(f"{what} must be at least 1, found {count}")
    return count
