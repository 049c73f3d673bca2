"""Whole sentences of a causal model: prefixes that grow as long as the second layer's inputs fit one update.

The input of layer 1 at a position depends on the tokens up to there alone, so that a prefix is tested by its last
token. DAGER keeps what lies below a threshold set by hand; here the threshold is a share of what the same tokens
reach behind a prefix that is wrong in one word, a word that the update does not have: one of its own could be the
first word of another text, and the prefix not wrong at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._dictionary import Floats, Ints
from ._forward import Sentence

Scorer = Callable[[Sentence, Sequence[int]], Floats]
"""Scores of each token behind a prefix, (n,): 0 is a perfect fit."""
_FLOOR = 1e-5
"""Residuals of a float32 forward pass mean nothing below this."""
_APART = 30.0
"""All true extensions of a prefix fit about as well; a token that belongs a word later fits worse than this."""


@dataclass(frozen=True)
class Growth:
    """What prefixes are scored by, and how many are followed."""

    score: Scorer
    start: Sentence
    """What every text begins with: the opening token, or nothing."""
    share: float
    """An extension is kept below this share of the best score behind a wrong prefix."""
    beam: int
    """Most prefixes of one length."""
    longest: int
    """Most tokens of a sentence."""
    vocabulary: int
    """How many tokens there are, from which wrong prefixes take a word."""
    rng: np.random.Generator

    def sentences(self, tokens: Sequence[int]) -> tuple[Sentence, ...]:
        """Return the sentences over ``tokens`` that can be grown no further, of two words at least."""
        words = sorted(set(tokens) - set(self.start))
        foreign = np.setdiff1d(np.arange(self.vocabulary), [*words, *self.start])
        alive = self._openings(words)
        done: list[Sentence] = []
        while alive:
            grown = [(prefix, self._extensions(prefix, words, foreign)) for prefix in alive]
            done += [prefix for prefix, kept in grown if not kept and len(prefix) > len(self.start) + 1]
            ranked = sorted((score, (*prefix, token)) for prefix, kept in grown for token, score in kept)
            alive = [prefix for _, prefix in ranked[: self.beam] if len(prefix) <= self.longest]
            done += [prefix for _, prefix in ranked[: self.beam] if len(prefix) > self.longest]
        return tuple(done)

    def _openings(self, words: list[int]) -> list[Sentence]:
        """Return the first words that fit about as well as the best one.

        Behind a wrong one, words fit badly and a wrong prefix is no worse: two of them could pass for a text.
        """
        if not words:
            return []
        if not self.start:
            return [(word,) for word in words]
        scores = self.score(self.start, words)
        near = max(_APART * float(scores.min()), _FLOOR)
        order = np.argsort(scores, kind="stable")[: self.beam]
        return [(*self.start, words[i]) for i in order.tolist() if scores[i] <= near]

    def _extensions(self, prefix: Sentence, words: list[int], foreign: Ints) -> list[tuple[int, float]]:
        """Return the tokens that fit behind ``prefix`` much better than any does behind a wrong one."""
        scores = self.score(prefix, words)
        if scores.min() >= self.share or not len(foreign):
            return []
        wrong = (*prefix[:-1], int(self.rng.choice(foreign)))
        near = max(_APART * float(scores.min()), _FLOOR)
        cut = min(self.share * float(self.score(wrong, words).min()), near)
        return [(words[i], float(scores[i])) for i in np.flatnonzero(scores < cut).tolist()]
