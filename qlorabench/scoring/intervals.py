"""Confidence intervals: exact for a rate, bootstrap for everything else.

The bootstrap is the expanded percentile interval of Hesterberg (What Teachers Should Know About the
Bootstrap, 2015, section 5.3): the plain percentile interval is too short on few units, so its levels are
moved outwards until a mean of normal units would get its Student interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return the exact interval of a binomial rate (Clopper and Pearson, Biometrika 1934).

    No trials give an interval of ``None`` with the reason. Raises ``ValueError`` where ``successes`` is
    not within [0, ``trials``] or ``level`` not within (0, 1).
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
