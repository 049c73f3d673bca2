"""Confidence intervals: exact for a rate and for means of few shares, bootstrap for everything else.

The bootstrap is the expanded percentile interval of Hesterberg (What Teachers Should Know About the
Bootstrap, 2015, section 5.3): the plain percentile interval is too short on few units, so its levels are
moved outwards until a mean of normal units would get its Student interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEW = 10
"""Shares below which a bootstrap of their mean covers it too rarely."""
FEW_AT_AN_END = 30
"""The same where some of them are 0 or 1: those that are not are then too rare to show."""
Units = NDArray[Any]
"""One row a unit that was drawn on its own (an example, a module, a trial): shape (units, ...)."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval and the number of units behind it."""

    value: float | None
    """The estimate; ``None`` where there was nothing to estimate from."""
    low: float | None
    """Lower end; ``None`` where the units do not support an interval."""
    high: float | None
    """Upper end; ``None`` together with ``low``."""
    n: int
    """Units behind the estimate: both samples together where there are two."""
    reason: str | None = None
    """Why something is missing; ``None`` where nothing is."""


def clopper_pearson(successes: float, trials: int, *, level: float = 0.95) -> Interval:
    """Return the exact interval of a binomial rate (Clopper and Pearson, Biometrika 1934).

    Its ends are quantiles of beta distributions and so defined for fractions of a success too. No trials give an
    interval of ``None`` with the reason. Raises ``ValueError`` where ``successes`` is not within [0, ``trials``] or
    ``level`` not within (0, 1).
    """
    _check_level(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in [0, trials={trials}], found {successes}")
    if trials == 0:
        return Interval(None, None, None, 0, "no trials")
    tail, failures = (1 - level) / 2, trials - successes
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return Interval(successes / trials, low, high, trials)


def mean_of_shares(shares: Units, *, rng: np.random.Generator, level: float = 0.95) -> Interval:
    """Return the mean of ``shares`` (n,), each within [0, 1], with an interval that covers it for small n as well.

    Few of them, and those that are all 0 or 1 or all alike, are counted as successes of a binomial: of all variables
    within [0, 1] with a given mean the one that is only 0 or 1 varies most. For fractions of a success that is no
    theorem, but covered the mean in every simulated case at least as often as its level says, where a bootstrap of two
    shares covered it in .18 to .55 of the cases (`python -m benchmarks.coverage`). Many shares get the bootstrap.
    None have no mean.

    Raises ``ValueError`` for one outside [0, 1] or a ``level`` outside (0, 1).
    """
    if len(shares) and not 0 <= shares.min() <= shares.max() <= 1:
        raise ValueError(f"shares must lie in [0, 1], found {shares.min()} to {shares.max()}")
    ends = np.isin(shares, (0.0, 1.0))
    few = len(shares) < (FEW_AT_AN_END if ends.any() else FEW)
    if few or ends.all() or shares.min() == shares.max():
        total = min(math.fsum(shares), float(len(shares)))
        found = clopper_pearson(total, len(shares), level=level)
        return found if len(shares) else replace(found, reason="no units")
    return bootstrap(shares, lambda rows: float(rows.mean()), rng=rng, level=level)


def relative_gain(rate: Interval, base: Interval) -> Interval:
    """Return (rate - base) / (1 - base) with its interval, from the intervals of two independent shares.

    It is 1 minus a ratio of two rates (of what is not extracted), whose limits are recovered from the limits of both:
    Donner and Zou, Closed-form confidence intervals for functions of the normal mean and standard deviation,
    Statistical Methods in Medical Research 2012, section 2. Exact limits of the rates keep it wide where all outcomes
    are alike. A base of 1 leaves no gain to be had.
    """
    n = rate.n + base.n
    if rate.value is None or base.value is None:
        return Interval(None, None, None, n, rate.reason or base.reason)
    if base.value == 1.0:
        return Interval(0.0, 0.0, 1.0, n)
    top, bottom = (Interval(1 - r.value, 1 - r.high, 1 - r.low, r.n) for r in (rate, base))  # type: ignore[operator]
    return Interval(1 - top.value / bottom.value, 1 - _ratio(top, bottom, 1), 1 - _ratio(top, bottom, -1), n)  # type: ignore[operator]


def _ratio(top: Interval, bottom: Interval, side: int) -> float:
    """Return the upper (``side`` 1) or lower (-1) limit of a ratio of two rates."""
    a, b = float(top.value or 0.0), float(bottom.value or 0.0)
    end, other = (top.high, bottom.low) if side > 0 else (top.low, bottom.high)
    end, other = float(end or 0.0), float(other or 0.0)
    below = other * (2 * b - other)
    if below <= 0.0:
        return float("inf") if side > 0 else 0.0
    spread = max((a * b) ** 2 - end * (2 * a - end) * below, 0.0)
    return max(a * b + side * float(np.sqrt(spread)), 0.0) / below


def bootstrap(
    units: Units,
    statistic: Callable[[Units], float],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Return ``statistic(units)`` with its bootstrap interval over the rows of ``units``, shape (n, ...).

    ``statistic`` says NaN where it is undefined. No ends are given, and the reason is, for fewer than two
    units or where the statistic of any resample is undefined: leaving those out would bias the rest.
    Raises ``ValueError`` for a ``level`` outside (0, 1) or ``draws`` below 1.
    """
    return _bootstrap((units,), lambda rows: statistic(rows[0]), rng=rng, level=level, draws=draws)


def bootstrap_two(
    positives: Units,
    negatives: Units,
    statistic: Callable[[Units, Units], float],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Return ``statistic(positives, negatives)`` with its interval, each sample resampled on its own.

    Shapes (n_positives, ...) and (n_negatives, ...); the rest is as in :func:`bootstrap`, the smaller
    sample deciding whether there is an interval and how far it is expanded.
    """
    samples = (positives, negatives)
    return _bootstrap(samples, lambda rows: statistic(*rows), rng=rng, level=level, draws=draws)


def _bootstrap(
    samples: tuple[Units, ...],
    statistic: Callable[[list[Units]], float],
    *,
    rng: np.random.Generator,
    level: float,
    draws: int,
) -> Interval:
    _check_level(level)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, found {draws}")
    total, fewest = sum(map(len, samples)), min(map(len, samples))
    if not fewest:
        return Interval(None, None, None, total, "no units")
    value = statistic(list(samples))
    count = draws if fewest > 1 else 0
    replicates = np.array([statistic([_resample(rows, rng) for rows in samples]) for _ in range(count)])
    return interval_of(replicates, value=value, n=total, fewest=fewest, level=level)


def interval_of(replicates: NDArray[np.float64], *, value: float, n: int, fewest: int, level: float = 0.95) -> Interval:
    """Return the expanded percentile interval of ``replicates``, shape (draws,), around ``value``.

    For those who resample in their own way; ``fewest`` counts the units of the smallest group that was
    resampled on its own, out of ``n`` in all. What is missing, and why, is as in :func:`bootstrap`.
    """
    _check_level(level)
    if not math.isfinite(value):
        return Interval(None, None, None, n, "undefined on these units")
    if fewest < 2:
        return Interval(float(value), None, None, n, "an interval needs two units to resample")
    undefined = int(np.count_nonzero(~np.isfinite(replicates)))
    if undefined:
        return Interval(float(value), None, None, n, f"undefined on {undefined} of {len(replicates)} resamples")
    tail = _expanded_tail(fewest, level=level)
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), n)


def _expanded_tail(n: int, *, level: float) -> float:
    student = stats.t.ppf((1 + level) / 2, n - 1)
    return float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * student))


def _resample(rows: Units, rng: np.random.Generator) -> Units:
    return rows[rng.integers(len(rows), size=len(rows))]


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, found {level}")
