"""The membership game: candidates of whom half were trained on, alike in label and group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.tasks.dataset import Indices
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.matching import Match, match, traits

ENOUGH = 30
"""Pairs of the same label and group from which on no other pairs are asked about."""


@dataclass(frozen=True)
class Challenge:
    """The membership game of one seat: which rows are asked about, and (secret) which are members.

    Each member has a non-member like it: a pair.
    """

    rows: Indices
    members: NDArray[np.bool_]
    """Who is a member, (candidates,)."""
    pairs: NDArray[np.int64]
    """Number of the pair of each candidate, (candidates,)."""
    strata: NDArray[np.int64]
    """Number of what a pair has in common, (candidates,): equal numbers have the same label (and group)."""
    uncontrolled: str = ""
    """What members and non-members may differ in beside membership; empty where that is nothing we know of."""

    def without(self, rows: Indices) -> NDArray[np.bool_]:
        """Return which candidates are left, (candidates,), without the pairs that have one of ``rows``."""
        gone = self.pairs[np.isin(self.rows, rows)]
        kept: NDArray[np.bool_] = ~np.isin(self.pairs, gone)
        return kept

    def only(self, kept: NDArray[np.bool_]) -> Challenge:
        """Return the game about the candidates that are ``kept``, whole pairs."""
        return Challenge(self.rows[kept], self.members[kept], self.pairs[kept], self.strata[kept], self.uncontrolled)


def draw_challenge(task: PreparedTask, *, insiders: int, most: int, seed: Seed, column: str | None = None) -> Challenge:
    """Return at most ``most`` members and as many non-members, shuffled.

    Members are rows of the clients after the first ``insiders``, who sit in some seat; non-members are held-out
    rows. Each member has a non-member of its label. Where the partition deals groups of ``column`` to clients, they
    are of one group too; if fewer than `ENOUGH` pairs are, others of the same label fill up, and the challenge says
    how many. A member without a match is not asked about. Raises UserError where every client is an insider.
    """
    outsiders = task.client_rows[insiders:]
    if not outsiders:
        raise UserError(f"the adversary sits at all {len(task.client_rows)} clients: there is nobody left to attack")
    rng = seed.numpy()
    pool = np.concatenate(outsiders)
    pool = rng.permutation(pool[~np.isin(pool, task.canary_rows)])  # canaries are of another distribution
    others = rng.permutation(task.holdout)
    shared = traits(task, column=column)
    found = match(pool, others, shared[:1], most=most)
    if len(found) < min(most, ENOUGH):
        found = match(pool, others, shared, most=most)

    # both sides of a pair, shuffled
    count = len(found)
    order = rng.permutation(2 * count)
    rows = np.array([pair.inside for pair in found] + [pair.outside for pair in found], dtype=np.int64)
    names = {kind: i for i, kind in enumerate(dict.fromkeys((pair.level, pair.trait) for pair in found))}
    strata = np.array([names[pair.level, pair.trait] for pair in found] * 2, dtype=np.int64)
    pairs = np.tile(np.arange(count, dtype=np.int64), 2)
    members = np.arange(2 * count) < count
    return Challenge(rows[order], members[order], pairs[order], strata[order], _uncontrolled(task, found, column))


def _uncontrolled(task: PreparedTask, found: list[Match], column: str | None) -> str:
    if column is None:
        return ""
    if column not in task.groups:
        return f"not controlled: {column}"
    loose = sum(pair.level > 0 for pair in found)
    return f"not controlled: {column} of {loose} of {len(found)} pairs" if loose else ""
