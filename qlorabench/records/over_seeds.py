"""One leakage out of those of several seeds: their mean, with an interval over seeds.

The value is the mean over all seeds that have one, whatever each of them says: to leave out seeds, or to take the
largest, is to choose by the outcome. Let x_i be the leakage of seed i out of k, d_i the distance from it to the end
of its own 95 % interval, and s^2 the variance of the x_i, which holds what varies within seeds as well. The interval is

    mean +- t(3 + k - 1) sqrt(V / k),    V = max(w^2, (3 w^2 + (k - 1) s^2) / (3 + k - 1)),    w^2 = mean (d_i / 1.96)^2

at each end with the distances to that end. V is the moderated variance of Smyth (Linear models and empirical Bayes
methods for assessing differential expression, Statistical Applications in Genetics and Molecular Biology 2004,
section 3), with what the seeds' own intervals say as the prior. The t interval of two or three values alone would be
several times as wide as that of one seed; the own intervals alone would know nothing of what varies between seeds. The
prior has the weight of three seeds, so that two seeds alike are told as surely as one. V is at least w^2: seeds that
are alike by chance make nothing surer. One seed keeps its own interval.

A leakage is cut at 0, which moves the mean of seeds without an effect upwards. Such a seed's own upper end says where
it lay: below 0 by as much as the end falls short of the longest half of an interval among the seeds. For the ends of
the interval it is put back there.

What this gives is simulated in `tests/records/test_over_seeds.py`, for one attack at a time. Without an effect the
lower end is above 0 in at most .025 of the draws where seeds differ by their own noise alone, and in about .03 where
they vary among themselves by as much again. In these two cases the interval covers an effect in .94 of the draws or
more; where seeds vary by twice their own noise, in .86 to .92.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

WEIGHT = 3
"""Degrees of freedom of the prior: what two seeds need for an interval no longer than that of one (t(4) / sqrt 2 is
1.96)."""
_NORMAL = 1.959963984540054
"""Half length of a 95 % interval in standard errors, for a normal estimate."""


@dataclass(frozen=True)
class Estimate:
    """A leakage with the ends of its 95 % interval, all in [0, 1]; ends may be missing."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def evident(self) -> bool:
        """Whether it is told from none: the lower end lies above 0."""
        return leaks(self.low)


def leaks(low: float | None) -> bool:
    """Tell whether a leakage with that lower end is told from none."""
    return low is not None and low > 0.0


def over_seeds(seeds: Sequence[Estimate]) -> Estimate:
    """Return the mean of ``seeds``, of which there is at least one, with its interval.

    Seeds without an interval of their own count with the uncertainty of the others; where none has one, neither has the
    mean.
    """
    if len(seeds) == 1:
        return seeds[0]
    value = _mean([seed.value for seed in seeds])
    longest = max((_longer_half(seed) for seed in seeds), default=0.0)
    places = [_uncut(seed, longest) for seed in seeds]
    # distances from each seed's place to the ends of its own interval, as far as it has one
    below = [_to_low(seed, longest) for seed in seeds if seed.low is not None]
    above = [seed.high - place for seed, place in zip(seeds, places, strict=True) if seed.high is not None]
    if not below or not above:
        return Estimate(value)
    low = _mean(places) - _half_length(places, below)
    high = _mean(places) + _half_length(places, above)
    return Estimate(value, min(max(low, 0.0), value), max(min(high, 1.0), value))


def _longer_half(seed: Estimate) -> float:
    """Return the longer half of a seed's interval; a lower end at 0 may have been cut and says nothing."""
    above = 0.0 if seed.high is None else seed.high - seed.value
    return max(above, seed.value - seed.low if seed.low else 0.0)


def _uncut(seed: Estimate, longest: float) -> float:
    """Return where a seed lies that may have been cut at 0, given the longest half of an interval among the seeds."""
    if seed.value > 0.0 or seed.high is None:
        return seed.value
    return min(0.0, seed.high - longest)


def _to_low(seed: Estimate, longest: float) -> float:
    return seed.value - seed.low if seed.low else max(longest, seed.value)


def _half_length(places: Sequence[float], distances: Sequence[float]) -> float:
    """Return half the length of the interval of the mean of ``places``, (k,), from the seeds' own half lengths."""
    others, centre = len(places) - 1, _mean(places)
    within = _mean([(distance / _NORMAL) ** 2 for distance in distances])
    between = math.fsum((place - centre) ** 2 for place in places) / others
    moderated = (WEIGHT * within + others * between) / (WEIGHT + others)
    return _student(WEIGHT + others) * math.sqrt(max(within, moderated) / len(places))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@cache
def _student(freedom: int) -> float:
    """Return the quantile of Student's distribution that a two-sided 95 % interval needs."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
