"""How much of the heads' changes each word carries, where tokens outnumber the directions of a head.

A pursuit needs fewer tokens than a head is wide. Second moments do not: under independent weights the changes of a
head have the covariance sum_p power_p a_p a_p', a different one in every head for the same few (token, position) pairs
p, and many heads tell more pairs than each of them has directions. Powers are fitted by sparse Bayesian learning
(Tipping, Journal of Machine Learning Research 1, 2001; several measurements of one support: Wipf and Rao, IEEE Trans.
Signal Processing 55(7), 2007), here with one set of powers for each head, drawn to their mean, since heads attend to
different words. Shapes: S heads, h width of a head, r rank, n pairs, k words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._dictionary import Dictionary, Floats, Ints
from ._heads import Side, Singles, best_pairs
from ._subspace import EDGE

_OWN = 0.8
"""Weight of a head's own powers against their mean over heads, as an exponent; the best of four on three batches."""
_RIDGE = 1e-5
_TINY = np.float32(1e-14)
_FIRST, _STEPS = 20, 60
"""Steps of the first fit, to all pairs of a first look, and of the second, to the words that it leaves."""


def word_powers(
    dictionary: Dictionary, decoy: Dictionary, sides: Sequence[Side], *, opening: int | None, pool: int, words: int
) -> tuple[Ints, Floats, Floats]:
    """Return tokens (k,), their powers by position from 1 on (k, M - 1), and those of as many decoys of no text.

    ``pool`` pairs of each kind are fitted at first, and all places of the ``words`` strongest then. ``opening`` is the
    token that stands at position 0 of every text: it is fitted too, and no find.
    """
    live = [side for side in sides if _signal(side).any()]
    if not live:
        nothing: Floats = np.zeros((0, max(0, len(dictionary.places) - 1)))
        return np.zeros(0, np.int64), nothing, nothing
    kinds = (dictionary, decoy, dictionary)
    known = (np.array([] if opening is None else [opening], np.int64), np.zeros(0 if opening is None else 1, np.int64))
    views = [(side, np.broadcast_to(np.eye(side.changes.shape[1]), _square(side)), _signal(side)) for side in live]
    looks = [best_pairs(kind, views, count=pool) for kind in kinds[:2]]
    first = _fit(kinds, live, [*looks, known], steps=_FIRST)[:2]
    tokens = [_strongest(look[0], powers, words) for look, powers in zip(looks, first, strict=True)]
    places = np.arange(1, len(dictionary.places))
    everywhere = [(np.repeat(some, len(places)), np.tile(places, len(some))) for some in tokens]
    fitted = _fit(kinds, live, [*everywhere, known], steps=_STEPS)
    true, false = (powers.reshape(-1, len(places)) for powers in fitted[:2])
    return tokens[0], true, false


def claimed_words(tokens: Ints, powers: Floats, decoys: Floats, *, above: float, share: float) -> Ints:
    """Return the tokens with more power than ``above`` times the strongest decoy's, and than ``share`` of all power.

    ``powers`` and ``decoys`` are (k, places). Decoys have the words' lengths and mutual angles and compete in the same
    fit. What hardly carries any power is left out, for the fit ends before it is sure of that.
    """
    if not len(tokens):
        return tokens
    own, false = powers.sum(1), decoys.sum(1)
    found: Ints = np.sort(tokens[own > max(above * float(false.max()), share * float(own.sum() + false.sum()))])
    return found


def _square(side: Side) -> tuple[int, int, int]:
    heads, width, _ = side.changes.shape
    return heads, width, width


def _signal(side: Side) -> Floats:
    """Return the directions of each head's changes that rise above unit noise, (S, h, r); others are zeros."""
    left, strengths, _ = np.linalg.svd(side.changes, full_matrices=False)
    above = strengths > EDGE * (side.changes.shape[1] ** 0.5 + side.changes.shape[2] ** 0.5)
    signal: Floats = left * above[:, None, :]
    return signal


def _strongest(tokens: Ints, powers: Floats, count: int) -> Ints:
    """Return the ``count`` distinct tokens with the largest sums of powers."""
    distinct, where = np.unique(tokens, return_inverse=True)
    return distinct[np.argsort(-np.bincount(where, powers), kind="stable")[:count]]


def _fit(
    kinds: Sequence[Dictionary], sides: Sequence[Side], pairs: Sequence[tuple[Ints, Ints]], *, steps: int
) -> list[Floats]:
    """Return the mean power over heads of the pairs of each kind, which are fitted together, (n,) each."""
    inputs = np.vstack([kind.inputs(*some) for kind, some in zip(kinds, pairs, strict=True)])
    heads = [head for side in sides for head in _heads(side, inputs)]
    mean = np.full(len(inputs), 1 / len(inputs), np.float32)
    own = np.tile(mean, (len(heads), 1))
    for _ in range(steps):
        for powers, (atoms, changes, noise) in zip(own, heads, strict=True):
            powers *= _gain(atoms, changes, powers, noise)
        mean = own.mean(0)
        own = np.maximum(own, _TINY) ** _OWN * np.maximum(mean, _TINY) ** (1 - _OWN)
    return np.split(mean.astype(np.float64), np.cumsum([len(tokens) for tokens, _ in pairs])[:-1])


def _heads(side: Side, inputs: Floats) -> list[tuple[Singles, Singles, float]]:
    """Return atoms (h, n) and changes (h, r) of each head, of unit mean square, and the variance of the noise."""
    parts = []
    for atoms, changes in zip(side.atoms(inputs), side.changes, strict=True):
        power = float((changes**2).mean())
        if power:
            scaled = atoms / np.sqrt((atoms**2).mean()), changes / power**0.5
            parts.append((scaled[0].astype(np.float32), scaled[1].astype(np.float32), 1 / power))
    return parts


def _gain(atoms: Singles, changes: Singles, powers: Singles, noise: float) -> Singles:
    """Return what one step of the fixed point multiplies the powers by, (n,)."""
    covariance = (atoms * powers) @ atoms.T
    width = len(covariance)
    covariance += (noise + _RIDGE * np.trace(covariance) / width) * np.eye(width, dtype=np.float32)
    weighted = np.linalg.solve(covariance, atoms)
    seen = ((changes.T @ weighted) ** 2).sum(0)
    gain: Singles = np.sqrt(seen / np.maximum(changes.shape[1] * (atoms * weighted).sum(0), _TINY))
    return gain
