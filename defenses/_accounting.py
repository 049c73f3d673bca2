"""The epsilon that a noise multiplier spends on Poisson-sampled batches, and the noise that an epsilon needs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

LEAST, MOST = 0.05, 300.0
"""Epsilons that can be accounted to a hundredth of themselves within seconds; beyond, exponentials overflow."""
LEAST_DELTA = 1e-10
"""Below it rounding errors of the convolutions are as large as delta."""
WITHIN = 0.01
"""The accountant's error, relative to epsilon."""
_AIM = 0.998
"""Share of the target that the search aims at, so that the accountant's error and rounding stay on the safe side."""
_NARROW = 2e-4
"""Relative width at which the search for the noise ends."""


def spent(noise: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return an upper bound of epsilon at ``delta``, at most `WITHIN` of it (of `LEAST`, if that is more) too high.

    PRV accounting (Gopi et al. 2021) as Opacus has it. Where every row is in every batch the mechanism is a Gaussian
    one, whose epsilon is known exactly (Balle and Wang 2018, Theorem 8). Infinite where there is too little noise to
    tell.
    """
    if sample_rate >= 1.0:
        return _gaussian(math.sqrt(steps) / noise, delta)
    rough = _renyi(noise, delta, sample_rate, steps)
    if not rough < 2 * MOST:
        return math.inf  # far beyond what is asked for, and a grid of losses that no memory holds
    error = max(0.01, min(rough, MOST) / 1000)
    found = _prv(noise, delta, sample_rate, steps, error=error)
    finer = WITHIN * max(LEAST, found - error)
    return found if error <= finer else _prv(noise, delta, sample_rate, steps, error=finer)


@lru_cache(maxsize=256)
def needed(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the noise multiplier, to four digits, that spends at most ``epsilon`` and at least 0.99 of it.

    Raises ValueError where no noise multiplier does.
    """
    from scipy.optimize import brentq

    def excess(log_noise: float) -> float:
        ratio = spent(math.exp(log_noise), delta, sample_rate, steps) / (_AIM * epsilon)
        return math.log(min(ratio, math.exp(9.0))) if ratio > 0 else -9.0

    # what a single Gaussian mechanism needs, as a place to start from
    high = math.log(sample_rate * math.sqrt(2 * steps * math.log(1.25 / delta)) / min(epsilon, 8.0) + 0.3)
    while excess(high) > 0:
        high += 0.5
        if high > math.log(1e6):
            raise ValueError("it would need a noise multiplier above a million")
    low = high - 0.5
    while excess(low) < 0:
        high, low = low, low - 0.5
        if low < math.log(1e-4):
            raise ValueError("hardly any noise spends less")
    noise = _rounded_up(math.exp(brentq(excess, low, high, xtol=_NARROW, rtol=1e-8)))
    while spent(noise, delta, sample_rate, steps) > epsilon:
        noise = _rounded_up(noise * (1 + _NARROW))
    return noise


def _rounded_up(value: float) -> float:
    """Return ``value`` with four digits: last bits, in which processors differ, leave no trace in the noise."""
    scale = 10.0 ** (3 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale


def _renyi(noise: float, delta: float, sample_rate: float, steps: int) -> float:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, sample_rate, steps)]
    with _quiet():
        return float(accountant.get_epsilon(delta))


def _prv(noise: float, delta: float, sample_rate: float, steps: int, *, error: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, sample_rate, steps)]
    try:
        with _quiet():
            found = float(accountant.get_epsilon(delta, eps_error=error))
    except (RuntimeError, ValueError, OverflowError, FloatingPointError):
        return math.inf  # the losses of so little noise cannot be laid on a grid
    return found if math.isfinite(found) else math.inf


def _gaussian(signal: float, delta: float) -> float:
    """Return epsilon of Gaussian noise on a difference of ``signal`` standard deviations, exactly."""
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    def excess(epsilon: float) -> float:
        middle, shift = signal / 2, epsilon / signal
        return math.exp(log_ndtr(middle - shift)) - math.exp(epsilon + log_ndtr(-middle - shift)) - delta

    if excess(0.0) <= 0:
        return 0.0
    enough = signal**2 / 2 + signal * math.sqrt(2 * math.log(1 / delta)) + 1.0
    return float(brentq(excess, 0.0, enough, xtol=1e-12, rtol=1e-10)) * (1 + 1e-9)


def _quiet() -> Any:
    import warnings

    return warnings.catch_warnings(action="ignore")
