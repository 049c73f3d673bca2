"""Claims at a threshold that was set by looking: how much they give away, with the noise of the threshold itself.

The threshold is the score of a non-member, so that k of n non-members score higher. Its true false positive rate is not
k / n: it follows Beta(k + 1, n - k), or less where scores are tied (Wilks, Determination of Sample Sizes for Setting
Tolerance Limits, 1941). A highest of twenty non-members has 4.8 % above it on average, not none, and members above it
are no leak for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from qlorabench.scoring.intervals import Interval

_NODES = 512
"""Equally likely rates that stand in for their distribution; tests hold the result against the exact one."""


@lru_cache(maxsize=4096)
def exposed_share(found: int, members: int, *, allowed: int, nonmembers: int, level: float = 0.95) -> Interval:
    """Return the share of members that the claims expose, with its interval: (TPR - FPR) / (1 - FPR).

    ``found`` of ``members`` score above the threshold, which stands at the score of the non-member that ``allowed`` of
    ``nonmembers`` may outscore. Were a share s of the members exposed, and the rest like non-members, as many would be
    claimed as of a binomial of the rate f + s (1 - f), with f drawn anew as the threshold's rate is. The ends are those
    s under which ``found`` or more (lower), or as few (upper), have the probability (1 - level) / 2. For s = 0 that is
    the beta-binomial, exact whatever the scores' distribution: without any signal the lower end is above 0 in at most
    (1 - level) / 2 of all draws. Ends are cut to [0, 1], the value is not. Raises ValueError where counts do not fit.
    """
    if not 0 <= found <= members or not 0 <= allowed < nonmembers:
        raise ValueError(f"{found} of {members} members above a threshold that {allowed} of {nonmembers} may pass")
    if not members:
        return Interval(None, None, None, nonmembers, "no members")
    middles = (np.arange(_NODES) + 0.5) / _NODES
    rates = stats.beta.ppf(middles, allowed + 1, nonmembers - allowed)

    def at_least(count: int, share: float) -> float:
        return float(stats.binom.sf(count - 1, members, rates + share * (1 - rates)).mean())

    tail, fpr = (1 - level) / 2, allowed / nonmembers
    low = _where(lambda share: at_least(found, share) - tail)
    high = _where(lambda share: tail - (1 - at_least(found + 1, share)))
    return Interval((found / members - fpr) / (1 - fpr), low, high, members + nonmembers)


def rate_limit(allowed: int, nonmembers: int, *, level: float = 0.95) -> float:
    """Return the upper limit of the true false positive rate of a threshold, as in `exposed_share`."""
    return float(stats.beta.ppf((1 + level) / 2, allowed + 1, nonmembers - allowed)) if allowed < nonmembers else 1.0


def _where(grows: Callable[[float], float]) -> float:
    """Return where ``grows`` crosses zero within [0, 1]; the end that is nearest where it does not."""
    if grows(0.0) >= 0:
        return 0.0
    if grows(1.0) <= 0:
        return 1.0
    return float(optimize.brentq(grows, 0.0, 1.0, xtol=1e-6))
