"""Whole sentences of an encoder: the order of tokens at which the inputs of the second layer fit one update.

The inputs of layer 1 depend on the whole text, on the frozen backbone and on layer 0's adapter, which the server
broadcast. A wrong word anywhere moves all of them a little out of the space that the update shows, so that their
distance from it is a graded score, and a search that follows it needs no product of all combinations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ._dictionary import Floats
from ._forward import Sentence
from ._places import Pairs

Scorer = Callable[[Sequence[Sentence]], Floats]
"""Scores of sentences, (n,): 0 is a perfect fit."""
_SWEEPS = 12
_TYPICAL = 3
"""Sweeps that a descent takes as a rule."""
_BLOCK = 6
"""Positions whose moves are scored at once."""
_PERFECT = 1e-5
"""Residuals of a float32 forward pass mean nothing below this."""
_KEEP = 0.7
_DECOYS = 16
_FIRST = 1.3
"""Pairs that the first try looks at, for each input of the update."""
_MORE = 0.1
"""As many again with each further try."""
_USED = 0.05
"""How much rarer than others a pair that a sentence has used is drawn."""
_RARE = 1e-6


@dataclass
class Search:
    """What candidate sentences are scored by, and when one is claimed."""

    score: Scorer
    first: int
    """Token that opens every sentence."""
    last: int
    """Token that closes every sentence."""
    share: float
    """A sentence is claimed below this share of its best decoy's score."""
    words: int
    """Size of the vocabulary, from which decoys take wrong words."""
    tries: int
    """Random starts for a sentence."""
    budget: int
    """About how many sentences are scored before the search gives up."""
    rng: np.random.Generator
    spent: int = 0
    """How many were, about."""

    def sentences(
        self,
        pairs: Pairs,
        *,
        inputs: int,
        known: Iterable[Sentence] = (),
        shares: Mapping[tuple[int, int], float] | None = None,
    ) -> tuple[Sentence, ...]:
        """Return sentences that fit the update and are made of its (token, position) ``pairs``.

        Every end must close a sentence, the farthest first, for nothing but a long sentence reaches far positions.
        Starts are drawn by the ``shares`` of the pairs, all alike without, those that no sentence has used yet before
        others; the first tries look at the pairs of the largest shares alone, later ones at more and more. The search
        ends when as many pairs are used as the update had different ``inputs``, or nothing more fits. ``known``
        sentences, of other updates, are looked at before.
        """
        weights = dict.fromkeys(pairs, 1.0) if not shares else {pair: shares.get(pair, 0.0) for pair in pairs}
        ranked = sorted(pairs, key=lambda pair: (-weights[pair], pair))
        lengths = sorted((place + 1 for token, place in pairs if token == self.last and place), reverse=True)
        made = [sentence for sentence in known if _used([sentence]) <= pairs]
        found = {s: None for s in made if self.claims(s, float(self.score([s])[0]))}
        best: dict[int, tuple[float, Sentence]] = {}
        for number in range(self.tries):
            near = ranked[: math.ceil(inputs * (_FIRST + _MORE * number))] if shares else ranked
            for length in lengths:
                used = _used(found)
                if len(used & pairs) >= min(inputs, len(pairs)) or self.spent > self.budget:
                    return tuple(found)
                options = self._options(used.union(near), length)
                if options is not None and any((t, i) not in used for i, row in enumerate(options) for t in row):
                    self.spent += _TYPICAL * sum(len(row) for row in options)
                    sentence, score = self._try(options, weights, used, best.get(length) if number % 2 else None)
                    best[length] = min(best.get(length, (np.inf, sentence)), (score, sentence))
                    if sentence not in found and self.claims(sentence, score):
                        found[sentence] = None
                        del best[length]
        return tuple(found)

    def _try(
        self,
        options: list[list[int]],
        weights: Mapping[tuple[int, int], float],
        used: Pairs,
        before: tuple[float, Sentence] | None,
    ) -> tuple[Sentence, float]:
        """Return where a descent ends from a random start, or from most of the best sentence ``before``."""
        start = tuple(self._draw(row, i, weights, used) for i, row in enumerate(options))
        if before is not None:
            start = tuple(np.where(self.rng.random(len(start)) < _KEEP, before[1], start).tolist())
        return self.descend(options, start)

    def _options(self, pairs: Pairs, length: int) -> list[list[int]] | None:
        """Return the tokens of every position of a sentence of ``length``, ``None`` where a position has none."""
        ends = {self.first, self.last}
        inner = [sorted(t for t, place in pairs if place == i and t not in ends) for i in range(1, length - 1)]
        return [[self.first], *inner, [self.last]] if all(inner) and length > 2 else None

    def _draw(self, row: list[int], place: int, weights: Mapping[tuple[int, int], float], used: Pairs) -> int:
        """Return one of the tokens of ``row``."""
        odds = [
            (weights.get((token, place), 0.0) + _RARE) * (_USED if (token, place) in used else 1.0) for token in row
        ]
        return int(self.rng.choice(row, p=np.array(odds) / sum(odds)))

    def descend(self, options: list[list[int]], sentence: Sentence) -> tuple[Sentence, float]:
        """Return the sentence at which no exchange of one token by another option helps, and its score.

        Sweeps over blocks of positions in random order: the moves of a block are scored together, and those that
        help are made together as far as that helps.
        """
        score = float(self.score([sentence])[0])
        for _ in range(_SWEEPS):
            before = score
            order = self.rng.permutation([i for i, row in enumerate(options) if len(row) > 1]).tolist()
            for block in [order[i : i + _BLOCK] for i in range(0, len(order), _BLOCK)]:
                moves = [(i, token) for i in block for token in options[i] if token != sentence[i]]
                gains = score - self.score([_with(sentence, [move]) for move in moves])
                if gains.max() > 0:
                    sentence, score = self._joint(sentence, moves, gains)
            if score >= before or score < _PERFECT:
                break
        return sentence, score

    def _joint(self, sentence: Sentence, moves: list[tuple[int, int]], gains: Floats) -> tuple[Sentence, float]:
        """Return the best of: the move that gains most, the two that do, and so on, one for each place."""
        best: dict[int, tuple[float, tuple[int, int]]] = {}
        for move, gain in zip(moves, gains, strict=True):
            best[move[0]] = max(best.get(move[0], (0.0, move)), (float(gain), move))
        ranked = [move for gain, move in sorted(best.values(), reverse=True) if gain > 0]
        tried = [_with(sentence, ranked[:count]) for count in range(1, len(ranked) + 1)]
        scores = self.score(tried)
        return tried[int(scores.argmin())], float(scores.min())

    def claims(self, sentence: Sentence, score: float) -> bool:
        """Tell whether ``sentence`` fits much better than sentences that are a little wrong."""
        decoys = near_misses(sentence, words=self.words, rng=self.rng)
        return score < self.share * float(self.score(decoys).min())


def _used(sentences: Iterable[Sentence]) -> Pairs:
    return frozenset((token, i) for sentence in sentences for i, token in enumerate(sentence))


def _with(sentence: Sentence, moves: Sequence[tuple[int, int]]) -> Sentence:
    changed = list(sentence)
    for place, token in moves:
        changed[place] = token
    return tuple(changed)


def near_misses(sentence: Sentence, *, words: int, rng: np.random.Generator) -> list[Sentence]:
    """Return ``sentence`` with two neighbours exchanged, and with one word that is another one, some of each.

    The tokens at both ends stay.
    """
    inner = np.arange(1, len(sentence) - 1)
    exchanged = [_with(sentence, [(i, sentence[i + 1]), (i + 1, sentence[i])]) for i in inner[:-1].tolist()]
    kept = rng.permutation([i for i, other in enumerate(exchanged) if other != sentence])[:_DECOYS]
    drawn = zip(rng.choice(inner, _DECOYS).tolist(), rng.integers(words, size=_DECOYS).tolist(), strict=True)
    wrong = [_with(sentence, [move]) for move in drawn if sentence[move[0]] != move[1]]
    return [exchanged[int(i)] for i in kept] + wrong
