"""Where the words stood: the shares of words and positions in the rows of all updates, fitted by sparse pairs.

A row is sum_vi w_vi (word_v + place_i + spread_vi shift). Rounds leave too few directions to tell all pairs
(v, i) apart, but each row yields its marginals sum_i w_vi, sum_v w_vi and sum_vi w_vi spread_vi, and over many
rows their covariance says which word shares its power with which position.
Shapes: N rows, n words, M positions, m = n + M + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ._dictionary import Dictionary, Floats, Ints
from ._subspace import Space, row_space

_STRONG = 1e4
"""Rows are scaled to one length; those of fewer noise units than this keep less weight."""
_FLATTEN = 0.7
"""Power on the spectrum over rows: tames the many that point the same way."""
_RIDGE = 1e-4
_LOAD = 1e-6
_TINY = 1e-300
Pairs = frozenset[tuple[int, int]]
"""(token id, position) pairs."""


@dataclass(frozen=True)
class Marginals:
    """Second moments over the rows of (share of each word, share of each position, share of the shift)."""

    moments: Floats
    """(m, m)."""
    noise: Floats
    """What noise adds to them, (m, m)."""
    spread: Floats
    """Standard deviations of the pairs, (n, M)."""


def marginals(dictionary: Dictionary, space: Space, *, rows: Floats, words: Ints) -> Marginals:
    """Return the marginals of whitened ``rows`` (N, d) over ``words`` (n,) and all positions."""
    weights = 1 / np.maximum(np.linalg.norm(rows, axis=1), _STRONG)
    left, strengths, right = np.linalg.svd((rows * weights[:, None]) @ space.basis.T, full_matrices=False)
    inverse = np.linalg.pinv(np.vstack([dictionary.words[words], dictionary.places, dictionary.shift]))
    shares = ((left * strengths**_FLATTEN) @ right) @ space.basis @ inverse
    moments, noise = shares.T @ shares / len(shares), inverse.T @ inverse * float(np.mean(weights**2))
    unseen = np.flatnonzero(np.diag(moments) == 0)  # the shift of a LayerNorm without bias: all noise
    moments[unseen, unseen] = moments.max()
    noise[unseen, unseen] = moments.max() / _LOAD
    return Marginals(moments, noise, dictionary.spread[words])


def find_places(seen: Marginals, *, first: int | None, iterations: int, score: float) -> Ints:
    """Return the (index of the word, position) pairs, (n', 2), that carry more than ``score`` of a word's power.

    The share is weighted by the root of the word's power over the median one: a frequent word stands at more
    places, each with less of its power. ``first`` is the index of the token that opens every text.
    """
    powers = _sparse_powers(seen, first=first, iterations=iterations)
    total = _power(seen)
    scores = powers / powers.sum(1, keepdims=True) * np.sqrt(total / np.median(total))
    return np.argwhere(scores > score)


def pair_shares(
    dictionary: Dictionary,
    seen: Sequence[tuple[Floats | None, Floats]],
    *,
    pairs: Pairs,
    first: int | None,
    iterations: int,
) -> Mapping[tuple[int, int], float]:
    """Return what share of its word's power each of the (token, position) ``pairs`` of one update carries.

    Pairs that share words and positions span each other, so that all of them lie in the update's space; those that
    were said carry the power. ``seen`` is, module by module, the factor (r, d) that the inputs were seen behind, if
    any, and the whitened rows (N, r). Empty where r is too narrow to tell words and positions apart. ``first`` is the
    token that opens every text.
    """
    words = np.unique(np.array([token for token, _ in pairs] + ([] if first is None else [first]), np.int64))
    said = dictionary.only(words)
    if not pairs or any(len(words) + len(said.places) + 1 > rows.shape[1] for _, rows in seen):
        return {}
    behind = [(said if factor is None else said.through(factor), rows) for factor, rows in seen]
    every = np.arange(len(words))
    each = [marginals(d, row_space(rows), rows=rows, words=every) for d, rows in behind]
    moments, noise = (np.sum(parts, axis=0) for parts in zip(*((m.moments, m.noise) for m in each), strict=True))
    index = {int(token): i for i, token in enumerate(words)}
    start = None if first is None else index[first]
    powers = _sparse_powers(Marginals(moments, noise, said.spread), first=start, iterations=iterations)
    own = {(token, place): float(powers[index[token], place]) for token, place in pairs}
    totals = np.full(len(words), _TINY)
    np.add.at(totals, [index[token] for token, _ in own], list(own.values()))
    return {pair: power / float(totals[index[pair[0]]]) for pair, power in own.items()}


def _power(seen: Marginals) -> Floats:
    """Return the power of every word, (n, 1)."""
    return np.diag(seen.moments)[: len(seen.spread), None]


def _sparse_powers(seen: Marginals, *, first: int | None, iterations: int) -> Floats:
    """Return the power of every pair, (n, M), by sparse Bayesian learning.

    powers <- powers * sqrt(f' P C P f / f' P f): C the moments, P the inverse of what the powers predict,
    f = (unit word, unit position, spread) the column of a pair.
    """
    power, scale = _power(seen), np.sqrt(np.diag(seen.moments))
    powers = np.clip(_start(seen), 0.003, 1) * power
    if first is not None:
        powers[first], powers[:, 0] = 0, 0
        powers[first, 0] = power[first, 0]
    free = (powers > 0).astype(np.float64)
    noise = seen.noise + _LOAD * np.diag(np.diag(seen.moments))
    for _ in range(iterations):
        predicted = (_predicted(powers, seen.spread) + noise) / np.outer(scale, scale)
        precision = np.linalg.inv(predicted) / np.outer(scale, scale)
        gain = _form(precision @ seen.moments @ precision, seen.spread) / _form(precision, seen.spread)
        powers = free * np.clip(powers * np.sqrt(gain), 1e-12 * power, 4 * power)
    return powers


def _start(seen: Marginals) -> Floats:
    """Return the regression of positions on words, (n, M): 1 at the place of a word that stood once."""
    count, moments = len(seen.spread), seen.moments
    scale = np.sqrt(np.diag(moments)[:count])
    words = moments[:count, :count] / np.outer(scale, scale)
    ridge = _RIDGE * np.eye(count) * np.trace(words) / count
    shares: Floats = np.linalg.solve(words + ridge, moments[:count, count:-1] / scale[:, None]) / scale[:, None]
    return shares


def _predicted(powers: Floats, spread: Floats) -> Floats:
    """Return the moments that independent pairs of these ``powers`` (n, M) would have, (m, m)."""
    count, mixed = len(powers), powers * spread
    upper: Floats = np.zeros((sum(powers.shape) + 1,) * 2)
    upper[:count, :count], upper[count:-1, count:-1] = np.diag(powers.sum(1)), np.diag(powers.sum(0))
    upper[:count, count:-1], upper[:count, -1] = powers, mixed.sum(1)
    upper[count:-1, -1], upper[-1, -1] = mixed.sum(0), (mixed * spread).sum()
    whole: Floats = np.triu(upper) + np.triu(upper, 1).T
    return whole


def _form(matrix: Floats, spread: Floats) -> Floats:
    """Return f' ``matrix`` f for the column f of every pair, (n, M)."""
    count, diagonal = len(spread), np.diag(matrix)
    plain = diagonal[:count, None] + diagonal[count:-1] + 2 * matrix[:count, count:-1]
    mixed = 2 * spread * (matrix[:count, -1:] + matrix[count:-1, -1])
    form: Floats = np.clip(plain + mixed + spread**2 * diagonal[-1], 1e-30, None)
    return form
