"""Which texts took part in which rounds, and what each of them says, from the words that each round shows.

Layer 0's rows of dA are the same combinations of words, places and the LayerNorm's shift in every round, so that each
word has a coefficient in each row. It is noise where no text of the round's batch has the word. Clients draw their
batches anew in every round, and words of one text alone come and go together: that pattern is the text's roster.
Shapes: T rounds, N rows of a round, n words, M positions, S texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._dictionary import Dictionary, Floats, Ints

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shares:
    """What words and positions contribute to the rows of each round."""

    tokens: Ints
    """Token ids of the words, (n,)."""
    words: Floats
    """Coefficients, (T, N, n); zero in rounds that do not have the word."""
    places: Floats
    """(T, N, M)"""
    present: Flags
    """Whether a round has the word, (T, n)."""
    occupied: Flags
    """Whether any text of a round reaches the position, (T, M)."""


def read_shares(dictionary: Dictionary, rounds: Sequence[Floats], *, tokens: Ints, false_alarm: float) -> Shares:
    """Return the shares in whitened rows of dA (N, d) of several rounds, of ``tokens`` (n,) that are all of the words.

    A word without a text has coefficients of known noise, so that their squares follow a chi-square law over N rows;
    ``false_alarm`` is how many are taken for present by chance in all.
    """
    from scipy.stats import chi2

    count = len(tokens)
    known = dictionary.words[tokens][:, np.argsort(dictionary.order)]
    inverse = np.linalg.pinv(np.vstack([known, dictionary.places, dictionary.shift]))
    shares = np.array([rows @ inverse for rows in rounds])
    noise = np.maximum(np.linalg.norm(inverse, axis=0), np.finfo(float).tiny)  # a LayerNorm without bias has no shift
    powers = ((shares / noise) ** 2).sum(1)
    there = powers > chi2.isf(false_alarm / powers.size, shares.shape[1])
    present, occupied = there[:, :count], there[:, count:-1]
    words = np.where(present[:, None], shares[:, :, :count], 0)
    return Shares(tokens, words, shares[:, :, count:-1], present, occupied)


def find_rosters(present: Flags, *, batch: int, texts: int) -> Flags:
    """Return the rosters of at most ``texts`` texts, (S, T): the patterns of ``present`` (T, n) that most words share.

    A pattern is taken as long as no round gets more than its ``batch`` of texts. What is shared by several texts comes
    and goes with any of them; few words have the same such union, so that rosters come first.
    """
    patterns, counts = np.unique(present.T, axis=0, return_counts=True)
    room = np.full(len(present), batch)
    rosters: list[Flags] = []
    for pattern in patterns[np.argsort(-counts, kind="stable")]:
        if len(rosters) < texts and pattern.any() and not pattern.all() and (room[pattern] > 0).all():
            rosters.append(pattern)
            room = room - pattern
    return np.array(rosters, dtype=bool).reshape(-1, len(present))


@dataclass(frozen=True)
class Seating:
    """Where the words of one text may have stood."""

    words: Ints
    """Indices of words that may be in the text, (m,)."""
    own: Flags
    """Whether no other text has the word, (m,)."""
    distances: Floats
    """How unlike the coefficients of a position and of a word are over the text's rounds, 0 to 1, (M, m)."""


_RIDGE = 1e-2
_CALM = 1e3
"""Rows are scaled to one length; those of less than this many noise units keep less weight."""


def seat_words(shares: Shares, rosters: Flags) -> list[Seating]:
    """Return the seating of every text.

    The coefficients of a position are the sum of those of the texts' words that stand there, and what stands in one
    text has much in common: its gradients pass the same few steps. So both the positions and the words that texts
    share are regressed on the words that only one text has; the parts of a text's own words are what the text adds.
    A word and the place where it stood agree in them, for own words exactly.
    """
    count = len(shares.tokens)
    own = [(shares.present == roster[:, None]).all(0) for roster in rosters]
    single = np.flatnonzero(np.any(own, axis=0)) if len(own) else np.zeros(0, np.int64)
    words = shares.words.reshape(-1, count)
    places = shares.places.reshape(len(words), -1)
    weights = 1 / np.maximum(np.linalg.norm(words[:, single], axis=1), _CALM)
    words, places = words * weights[:, None], places * weights[:, None]
    known = words[:, single]
    moments = known.T @ known
    parts = np.linalg.solve(moments + _RIDGE * np.diag(np.diag(moments)), known.T @ np.hstack([words, places]))
    seatings = []
    for roster, mine in zip(rosters, own, strict=True):
        others = np.setdiff1d(single, np.flatnonzero(mine))
        may = np.setdiff1d(np.flatnonzero(shares.present[roster].all(0)), others)
        during = np.repeat(roster, shares.words.shape[1])
        added = known[during][:, mine[single]] @ parts[mine[single]]
        said = np.where(mine[may], words[during][:, may], added[:, may])
        distances = _unlike(added[:, count:], said)
        seatings.append(Seating(may, mine[may], distances))
    return seatings


def _unlike(left: Floats, right: Floats) -> Floats:
    """Return the squared distance of all columns of ``left`` from all of ``right``, over their squared lengths."""
    squares = (left**2).sum(0)[:, None] + (right**2).sum(0)
    unlike: Floats = 1 - 2 * left.T @ right / np.maximum(squares, np.finfo(float).tiny)
    return unlike
