"""Which (token, position) pairs span the heads' changes: a greedy pursuit over all heads at once, with a certificate.

Every head shows r directions out of the n that its text's atoms span. The pair with most of its power in those
directions, over all heads, is taken; what it spans is projected out, and the next one stands out more. At the end
nothing is left above the noise: then the pairs are all there is, provided that fewer were taken than would explain
anything. This is joint sparse recovery by rank-aware order-recursive matching pursuit (Davies and Eldar, IEEE Trans.
Information Theory 58(2), 2012) with a dictionary for each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._dictionary import Dictionary, Floats
from ._heads import Atoms, Side, best_pairs
from ._subspace import EDGE

_ROOM = 6
"""Directions of each head that must stay free of chosen atoms, lest any pairs explain everything."""
_EXACT = 1e-5
"""Directions weaker than this share of a head's changes are not told from errors of the atoms themselves."""


@dataclass(frozen=True)
class Explanation:
    """Pairs that were found, the opening token left out."""

    pairs: frozenset[tuple[int, int]]
    """(token id, position)"""
    complete: bool
    """Whether nothing above the noise is left, and would be without any one of them."""


@dataclass(frozen=True)
class Remainder:
    """What chosen atoms leave of one side."""

    free: Floats
    """Orthonormal directions of each head that no chosen atom spans, (S, h, f)."""
    signal: Floats
    """Those of the changes among them that rise above the noise, (S, h, k); columns of zeros fill up."""

    @property
    def empty(self) -> bool:
        """Tell whether nothing is left above the noise."""
        return not self.signal.any()

    @property
    def full(self) -> bool:
        """Tell whether the signal fills what is free in a head, where any pair would explain it as well."""
        return bool((self.signal.any(1).sum(1) >= self.free.shape[2]).any())


@dataclass
class Pursuit:
    """The search in one update; ``opening`` is the (token, position 0) that every text starts with."""

    dictionary: Dictionary
    sides: Sequence[Side]
    opening: int | None
    pool: int
    """Pairs that stay in the search after the first look at all of them."""
    repairs: int
    """How often the weakest choices are taken back when the room is used up."""

    def __post_init__(self) -> None:
        self._tokens, self._positions = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._look([])

    def run(self) -> Explanation:
        """Return the fewest pairs found to explain the update, or those taken when the room was used up."""
        chosen, best = self._grow([]), None
        for attempt in range(self.repairs + 1):
            if self._explained(chosen):
                chosen = self._pruned(chosen)
                best = min(best, self._named(chosen), key=len) if best else self._named(chosen)
                if len(set(self._positions[chosen])) == len(chosen):  # one text; else two may stand for one
                    break
            if attempt < self.repairs and chosen:
                chosen = self._grow(self._look(self._strongest(chosen)))
        found = best or self._named(chosen)
        return Explanation(frozenset(found), complete=best is not None)

    def _named(self, chosen: list[int]) -> list[tuple[int, int]]:
        return [(int(self._tokens[c]), int(self._positions[c])) for c in chosen]

    def _look(self, chosen: list[int]) -> list[int]:
        """Fill the pool by a look at all pairs, given ``chosen``, and return where these stand in it."""
        left = self._left(chosen)
        views = [(side, part.free, part.signal) for side, part in zip(self.sides, left, strict=True)]
        tokens, positions = best_pairs(self.dictionary, views, count=self.pool)
        self._tokens = np.concatenate([self._tokens[chosen], tokens])
        self._positions = np.concatenate([self._positions[chosen], positions])
        inputs = self.dictionary.inputs(self._tokens, self._positions)
        self._atoms = [Atoms(side.atoms(inputs).astype(np.float32)) for side in self.sides]
        return list(range(len(chosen)))

    def _grow(self, chosen: list[int]) -> list[int]:
        """Add pairs until nothing is left, or until what is left has no room to contradict one."""
        chosen, left = list(chosen), self._left(chosen)
        most = self.sides[0].changes.shape[1] - _ROOM
        while len(chosen) < most and not all(part.empty for part in left) and not any(part.full for part in left):
            chosen.append(int(self._scores(left).argmax()))
            left = self._left(chosen)
        return chosen

    def _strongest(self, chosen: list[int]) -> list[int]:
        """Return the two thirds of ``chosen`` that the others leave most signal for, one a position."""
        scores = {pair: self._scores(self._left([c for c in chosen if c != pair]))[pair] for pair in chosen}
        ranked = sorted(chosen, key=lambda pair: -scores[pair])
        at: dict[int, int] = {}
        for pair in ranked:
            at.setdefault(int(self._positions[pair]), pair)
        return [pair for pair in ranked if at[int(self._positions[pair])] == pair][: 2 * len(chosen) // 3]

    def _pruned(self, chosen: list[int]) -> list[int]:
        for pair in reversed(chosen):
            rest = [c for c in chosen if c != pair]
            if self._explained(rest):
                chosen = rest
        return chosen

    def _explained(self, chosen: list[int]) -> bool:
        return all(part.empty for part in self._left(chosen))

    def _scores(self, left: Sequence[Remainder]) -> Floats:
        """Return the mean over heads of each pair's share in the signal, (pool,)."""
        total, live = np.zeros(len(self._tokens)), 0
        for part, atoms in zip(left, self._atoms, strict=True):
            heads = np.flatnonzero(part.signal.any((1, 2)))
            if len(heads):
                total += Atoms(atoms.values[heads]).shares(part.free[heads], part.signal[heads]).sum(0)
                live += len(heads)
        return total / max(live, 1)

    def _left(self, chosen: list[int]) -> list[Remainder]:
        return remainders(self.dictionary, self.sides, opening=self.opening, pairs=self._named(chosen))


def remainders(
    dictionary: Dictionary, sides: Sequence[Side], *, opening: int | None, pairs: Sequence[tuple[int, int]]
) -> list[Remainder]:
    """Return what the opening token and the (token id, position) ``pairs`` leave of every side."""
    own = [] if opening is None else [dictionary.inputs(np.array([opening]), np.array([0]))]
    tokens, positions = np.array(pairs, np.int64).reshape(-1, 2).T
    found = [dictionary.inputs(tokens, positions)] if pairs else []
    return [_remainder(side, [*(own if side.opened else []), *found]) for side in sides]


def _remainder(side: Side, inputs: list[Floats]) -> Remainder:
    heads, width, _ = side.changes.shape
    free = np.broadcast_to(np.eye(width), (heads, width, width))
    if inputs:
        atoms = side.atoms(np.vstack(inputs))
        free = np.linalg.qr(atoms, mode="complete")[0][:, :, atoms.shape[2] :]
    left, strengths, _ = np.linalg.svd(np.swapaxes(free, 1, 2) @ side.changes, full_matrices=False)
    noise = EDGE * (free.shape[2] ** 0.5 + side.changes.shape[2] ** 0.5)
    edges = np.maximum(noise, _EXACT * np.linalg.norm(side.changes, axis=(1, 2)))
    return Remainder(free, (free @ left) * (strengths > edges[:, None])[:, None, :])
