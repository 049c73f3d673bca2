"""How much of an update each candidate accounts for, from the inner products of gradients and updates.

Shapes: n candidates, C clients, P elements of an update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from ._dictionary import Floats

_NEGLIGIBLE = 1e-6
"""Directions of float32 gradients that carry less than this share of the strongest one's power are rounding."""
_LOG_RIDGE = (-14.0, 14.0)
"""Range of the logarithm of the ridge: from interpolation to no more than a matched filter."""


@dataclass(frozen=True)
class Moments:
    """Inner products of one round between the candidates' descent directions and the clients' updates."""

    gram: Floats
    """Of candidates with candidates, (n, n)."""
    products: Floats
    """Of clients' updates with candidates, (C, n)."""
    powers: Floats
    """Squared lengths of the updates, (C,)."""
    elements: int
    """P."""

    @property
    def lengths(self) -> Floats:
        """Lengths of the candidates' directions, (n,)."""
        lengths: Floats = np.sqrt(np.maximum(np.diag(self.gram), np.finfo(float).tiny))
        return lengths


def cosine(rounds: Sequence[Moments]) -> Floats:
    """Return the sum over rounds of the cosine of update and direction, (C, n)."""
    return sum(
        (m.products / m.lengths / np.sqrt(np.maximum(m.powers, np.finfo(float).tiny))[:, None] for m in rounds),
        start=np.zeros(rounds[0].products.shape),
    )


def alignment(rounds: Sequence[Moments]) -> Floats:
    """Return the matched filter over all rounds, (C, n): <direction, update> / |direction|.

    Where updates are the direction plus white noise of one size, as under DP-SGD, no test of the direction against
    noise alone is more powerful (Neyman and Pearson). What the other examples add is noise to it.
    """
    products: Floats = np.sum([m.products for m in rounds], axis=0)
    filtered: Floats = products / np.sqrt(np.sum([m.lengths**2 for m in rounds], axis=0))
    return filtered


def regression(rounds: Sequence[Moments]) -> Floats:
    """Return the sum over rounds of each candidate's share of the update in units of its noise, (C, n)."""
    return sum((_round_regression(m) for m in rounds), start=np.zeros(rounds[0].products.shape))


def _round_regression(moments: Moments) -> Floats:
    """Return ridge coefficients of the updates on all unit directions, divided by their standard errors, (C, n)."""
    products = moments.products / moments.lengths
    strengths, axes = np.linalg.eigh(moments.gram / np.outer(moments.lengths, moments.lengths))
    kept = strengths > _NEGLIGIBLE * strengths[-1]
    strengths, axes = strengths[kept], axes[:, kept]
    parts = products @ axes
    shares: Floats = np.zeros(products.shape)
    for client, power in enumerate(moments.powers):
        if power > 0:
            ridge, noise = _fitted_ridge(parts[client], strengths, power=float(power), elements=moments.elements)
            errors = noise * (axes**2) @ (strengths / (strengths + ridge) ** 2)
            shares[client] = axes @ (parts[client] / (strengths + ridge)) / np.sqrt(errors)
    return shares


def _fitted_ridge(parts: Floats, strengths: Floats, *, power: float, elements: int) -> tuple[float, float]:
    """Return the likeliest ridge and the variance of an element's noise, by marginal likelihood.

    The update is taken as N(0, noise (1 + X'X / ridge)) over its P elements, with the unit directions as rows of X:
    weights of variance noise / ridge and white noise. Under noise alone the ridge grows without limit, where the
    coefficients become those of the matched filter.
    """
    inside = parts**2 / strengths
    rest = max(power - float(inside.sum()), np.finfo(float).tiny)

    def noise(ridge: float) -> float:
        return (float((inside * ridge / (strengths + ridge)).sum()) + rest) / elements

    def cost(log_ridge: float) -> float:
        ridge = float(np.exp(log_ridge))
        return elements * float(np.log(noise(ridge))) + float(np.log1p(strengths / ridge).sum())

    best = float(np.exp(minimize_scalar(cost, bounds=_LOG_RIDGE, method="bounded").x))
    return best, noise(best)
