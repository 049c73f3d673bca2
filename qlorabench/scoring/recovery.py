"""How much of a protected adapter an attack restored, by entry and by the product B A it stands for.

A has shape (rank, d_in) and B (d_out, rank). Products compare what a LoRA adapter does: they are the same
for every factorisation, while entries are only comparable where both sides keep the same factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qlorabench.scoring.intervals import Interval, bootstrap

Floats = NDArray[np.float64]
Factors = Mapping[str, Floats]
"""Factors by name."""


class FactorNames(NamedTuple):
    """The names of the two factors of one module."""

    a: str
    b: str


@dataclass(frozen=True)
class ErrorRemoved:
    """The share of the broadcast's mean squared error that a recovered adapter is free of."""

    value: float | None
    """1 for a perfect recovery, 0 for the broadcast itself, negative where it got worse."""
    broadcast_mse: float
    recovered_mse: float
    entries: int
    """Entries the errors are means of."""
    reason: str | None = None
    """Why there is no value."""


@dataclass(frozen=True)
class ProductErrors:
    """Squared Frobenius norms by module; rows of ``squares`` are the units of a bootstrap."""

    modules: tuple[str, ...]
    squares: Floats
    """Columns: |s(B A - B' A')|^2, the error, and |s B A|^2, the truth. Shape (modules, 2)."""

    @property
    def by_module(self) -> dict[str, float | None]:
        """Relative error of each module; ``None`` where its true product is 0."""
        return {m: _defined(_relative(row[None])) for m, row in zip(self.modules, self.squares, strict=True)}

    @property
    def value(self) -> float | None:
        """Relative error of all modules together: the root of the sums; ``None`` where the truth is 0."""
        return _defined(_relative(self.squares))

    def interval(self, *, rng: np.random.Generator, level: float = 0.95, draws: int = 1000) -> Interval:
        """Return :attr:`value` with its bootstrap interval over modules."""
        return bootstrap(self.squares, _relative, rng=rng, level=level, draws=draws)


def error_removed(truth: Factors, broadcast: Factors, recovered: Factors) -> ErrorRemoved:
    """Return 1 - MSE(recovered) / MSE(broadcast), means over all entries of all factors, in float64.

    No value, and the reason, where the broadcast is exact: there is no error to remove. Raises
    ``ValueError`` where names or shapes differ, or a value is not finite.
    """
    _check(truth, broadcast=broadcast, recovered=recovered)
    entries = sum(array.size for array in truth.values())
    before, after = (_squared_distance(truth, other) / max(entries, 1) for other in (broadcast, recovered))
    if before == 0:
        reason = "the broadcast is exact: no error to remove" if entries else "no entries to compare"
        return ErrorRemoved(None, before, after, entries, reason)
    return ErrorRemoved(1 - after / before, before, after, entries)


def relative_error_of_products(
    truth: Factors, other: Factors, *, pairs: Mapping[str, FactorNames], scaling: float
) -> ProductErrors:
    """Return |s(B A - B' A')| against |s B A|, Frobenius, for the modules of ``pairs``, in float64.

    The ranks of the two sides may differ, the shapes of their products may not. No (d_out, d_in) matrix
    is formed. Raises ``KeyError`` for a factor that is missing, ``ValueError`` where shapes do not fit or
    a value is not finite.
    """
    rows = [_module_squares(truth, other, names=names, scaling=scaling) for names in pairs.values()]
    return ProductErrors(tuple(pairs), np.array(rows, np.float64).reshape(-1, 2))


def _module_squares(truth: Factors, other: Factors, *, names: FactorNames, scaling: float) -> tuple[float, float]:
    """Return error and truth squared, with B A - B' A' written as the one product [B, -B'] [A; A']."""
    a, b, a_other, b_other = (_finite(side, name) for side in (truth, other) for name in names)
    error = _norm_of_product(np.hstack([b, -b_other]), np.vstack([a, a_other]))
    return (scaling * error) ** 2, (scaling * _norm_of_product(b, a)) ** 2


def _norm_of_product(left: Floats, right: Floats) -> float:
    """Return |left right|, Frobenius, for shapes (d_out, k) and (k, d_in).

    With left = Q R and right^T = Q' R', it is |R R'^T|: the trace identity tr(left^T left right right^T)
    without its squares, which would drown relative errors below 1e-8.
    """
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"B of shape {left.shape} and A of shape {right.shape} share no rank")
    return float(np.linalg.norm(_triangle(left) @ _triangle(right.T).T))


def _triangle(tall: Floats) -> Floats:
    return np.asarray(np.linalg.qr(tall, mode="r"), np.float64)


def _relative(squares: Floats) -> float:
    error, truth = squares.sum(axis=0)
    return float(np.sqrt(error / truth)) if truth > 0 else np.nan


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _squared_distance(truth: Factors, other: Factors) -> float:
    return float(sum(np.sum((_float(other[name]) - _float(array)) ** 2) for name, array in truth.items()))


def _finite(factors: Factors, name: str) -> Floats:
    array = _float(factors[name])
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array


def _float(array: Floats) -> Floats:
    return np.asarray(array, np.float64)


def _check(truth: Factors, **others: Factors) -> None:
    problems = [p for side, factors in others.items() for p in _differences(truth, factors, side=side)]
    problems += [
        f"{side}: {name} is not finite"
        for side, factors in {"truth": truth, **others}.items()
        for name, array in factors.items()
        if not np.isfinite(array).all()
    ]
    if problems:
        raise ValueError("; ".join(problems))


def _differences(truth: Factors, other: Factors, *, side: str) -> list[str]:
    problems = [f"{side}: {name} stands on one side only" for name in sorted(truth.keys() ^ other.keys())]
    shared = [name for name in truth if name in other and truth[name].shape != other[name].shape]
    return problems + [f"{side}: {n} is {other[n].shape}, the truth {truth[n].shape}" for n in shared]
