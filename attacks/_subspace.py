"""The space that noisy rows span, and how far dictionary entries lie from it.

Shapes: N rows, d width, k rank, V tokens, M positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._dictionary import Dictionary, Floats, Ints

EDGE = 1.3
"""Singular values of pure unit noise stay below sqrt(N) + sqrt(d) (Marchenko-Pastur), and so below 1.3 of it."""
_NEGLIGIBLE = 1e-6
_FLOOR = 1e-7
"""Residuals in float64 mean nothing below this."""
_STEPS = 20_000


@dataclass(frozen=True)
class Space:
    """The directions of N rows that rise above the noise."""

    basis: Floats
    """Orthonormal rows, (k, d)."""
    rows: int
    """How many rows it was read from."""

    @property
    def rank(self) -> int:
        """Number of directions above the noise."""
        return len(self.basis)

    @property
    def width(self) -> int:
        """Dimension of the space that the rows live in."""
        return int(self.basis.shape[1])


def row_space(rows: Floats) -> Space:
    """Return the directions of ``rows`` (N, d), given in units of the noise of their elements."""
    count, width = rows.shape
    small = np.linalg.qr(rows, mode="r") if count > width else rows
    _, strengths, basis = np.linalg.svd(small, full_matrices=False)
    rank = int((strengths > EDGE * (count**0.5 + width**0.5)).sum())
    return Space(basis[:rank], count)


def widened(space: Space, known: Floats) -> Space:
    """Return ``space`` with the directions ``known`` (n, d) in it as well."""
    rest = known - (known @ space.basis.T) @ space.basis
    _, strengths, basis = np.linalg.svd(rest, full_matrices=False)
    new = strengths > _NEGLIGIBLE * np.linalg.norm(known, axis=1).max()
    return Space(np.vstack([space.basis, basis[new]]), space.rows)


def unexplained(space: Space, known: Floats) -> float:
    """Return the root mean square distance of the directions of ``space`` from the span of ``known`` (n, d)."""
    _, strengths, basis = np.linalg.svd(known, full_matrices=False)
    span = basis[strengths > _NEGLIGIBLE * strengths[0]]
    inside = ((space.basis @ span.T) ** 2).sum(1)
    return float(np.sqrt(np.clip(1 - inside, 0, 1).mean()))


def word_residuals(dictionary: Dictionary, space: Space) -> Floats:
    """Return the relative distance of every word from ``space``, (V,)."""
    return _residual(dictionary.word_energy(space.basis), dictionary.word_lengths)


def pair_residuals(dictionary: Dictionary, space: Space) -> Floats:
    """Return the relative distance of every input (token, position) from ``space``, (V, M)."""
    return _residual(dictionary.energy(space.basis), dictionary.lengths)


def nearest_words(dictionary: Dictionary, space: Space, *, factor: Floats, most: int) -> Ints:
    """Return the ``most`` tokens whose words lie closest to ``space`` (in R^rank) behind ``factor``, (n,), sorted.

    With places and shift in the basis, as a word's inputs lie no closer than the word: a first look, in float32.
    """
    whole = widened(space, np.vstack([dictionary.places, dictionary.shift]) @ factor.T)
    seen = dictionary.words.astype(np.float32) @ factor[:, dictionary.order].T.astype(np.float32)
    inside = ((seen @ whole.basis.T.astype(np.float32)) ** 2).sum(1)
    shares = inside / (seen**2).sum(1)
    kept: Ints = np.sort(np.argsort(-shares, kind="stable")[:most])
    return kept


def log_chance(residuals: Floats, space: Space) -> Floats:
    """Return ln P(a random direction lies as close to ``space``), of the shape of ``residuals``.

    Its squared residual follows Beta((d - k) / 2, k / 2); looked up, for there are millions of pairs.
    """
    from scipy.stats import beta

    lowest = np.log(_FLOOR)
    table = beta.logcdf(np.exp(2 * np.linspace(lowest, 0, _STEPS + 1)), (space.width - space.rank) / 2, space.rank / 2)
    chances: Floats = table[((1 - np.log(residuals) / lowest) * _STEPS).astype(np.int64)]
    return chances


def _residual(inside: Floats, total: Floats) -> Floats:
    residuals: Floats = np.sqrt(np.clip(1 - inside / np.maximum(total, np.finfo(float).tiny), _FLOOR**2, 1))
    return residuals
