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
class Ranked:
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


Metric = Callable[[Ranked, Counts, Bools, Bools], Floats]
"""From counts, shape (draws, n), and who is inside and outside, shape (n,), to values, shape (draws,)."""


def rank(scores: Any, *, members: Any, rng: np.random.Generator, flips: int = 0) -> Ranked:
    """Return examples with ``scores`` (n,) ranked, halved for the cross-fit, and flipped ``flips`` times."""
    split(scores, members)
    order = np.argsort(scores, kind="stable")
    ascending, flags = np.asarray(scores, np.float64)[order], np.asarray(members)[order]
    halves = halve(flags, rng) | halve(~flags, rng)
    quarters = [halve(~flags & halves, rng) | halve(~flags & ~halves, rng) for _ in range(flips)]
    coins = np.array(quarters, np.bool_).reshape(flips, len(flags))
    starts = np.flatnonzero(np.append(True, ascending[1:] > ascending[:-1]))
    return Ranked(flags, halves, coins, starts)


def resampled(ranked: Ranked, metric: Metric, *, rng: np.random.Generator, level: float, draws: int) -> Interval:
    """Return ``metric`` with its interval over ``draws`` resamples of the examples."""
    strata = ranked.members * 2 + (ranked.halves if metric is cross_fitted else 0)
    sizes = np.unique(strata, return_counts=True)[1]
    batches = _resamples(strata, rng=rng, draws=positive(draws, what="draws"))
    replicates = np.concatenate([measure(ranked, counts, metric) for counts in batches])
    value = float(measure(ranked, once(ranked), metric)[0])
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


def once(ranked: Ranked) -> Counts:
    """Return the counts of the sample itself, (1, n)."""
    return np.ones((1, len(ranked.members)), np.int64)


def measure(ranked: Ranked, counts: Counts, metric: Metric) -> Floats:
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
