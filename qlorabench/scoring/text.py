"""How much of a client's text a claim gives back: ROUGE over matched pairs, and sets of tokens.

ROUGE is the F measure of Lin (ROUGE: A Package for Automatic Evaluation of Summaries, 2004) over the words of any
script, as `qlorabench.scoring.words` has them; of ASCII texts it is what the rouge_score package says without stemming.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from qlorabench.scoring.words import characters, words

Floats = NDArray[np.float64]
_T = TypeVar("_T")


class Match(NamedTuple):
    """A reference and the candidate it was given, by their positions."""

    reference: int
    candidate: int
    score: float


@dataclass(frozen=True)
class ReconstructionScores:
    """Scores of every reference against its own candidate, each of shape (references,), within [0, 1].

    A reference left without a candidate gets the worst score. One where a metric is undefined is NaN there.
    """

    rouge1: Floats
    """NaN for a reference without words."""
    rouge2: Floats
    """NaN for a reference of fewer than two words, which has no bigram."""
    rouge_l: Floats
    """NaN for a reference without words."""
    edit: Floats
    """Edit distance, 0 for the same words; 1 for a reference without a candidate, NaN for one without words."""
    exact: Floats
    """1 where the words are the same in the same order, else 0; NaN for a reference without words."""
    exact_with_marks: Floats
    """1 where the words are, and every character too (case, accents, punctuation, emoji), up to white space, else 0;
    NaN for a reference without characters."""
    candidates: int
    """How many texts were claimed: more of them than references make a match likelier."""
    matched: int
    """References that share at least a word with a candidate of their own, or all their characters."""


class DefinedMean(NamedTuple):
    """A mean with how many scores it holds and how many were undefined and left out."""

    value: float | None
    counted: int
    undefined: int


@dataclass(frozen=True)
class TokenScores:
    """How well claimed tokens cover the true ones."""

    precision: float | None
    """Hits per claim; ``None`` where nothing was claimed."""
    recall: float | None
    """Hits per true token; ``None`` where there is none."""
    f1: float | None
    """Harmonic mean, 0 where nothing was claimed; ``None`` where there is no true token."""
    true: int
    claimed: int
    hits: int


def rouge_n(reference: str, candidate: str, *, n: int) -> float | None:
    """Return the F measure of shared n-grams, each counted as often as both texts have it.

    ``None`` where the reference is shorter than ``n`` words: rouge_score says 0 there, which no
    candidate could better. Raises ``ValueError`` for ``n`` below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}")
    true, claimed = _ngrams(words(reference), n), _ngrams(words(candidate), n)
    return _count_scores(true, claimed).f1


def rouge_l(reference: str, candidate: str) -> float | None:
    """Return the F measure of the longest common subsequence of words; ``None`` without reference words."""
    true, claimed = words(reference), words(candidate)
    return _scores(len(true), len(claimed), hits=_common_subsequence(true, claimed)).f1


def edit_distance(reference: str, candidate: str) -> float | None:
    """Return the words to insert, delete or replace, as a share of the longer text; ``None`` without reference words.

    Levenshtein's distance over words: 0 for the same words in the same order, 1 where none is in place.
    """
    true, claimed = words(reference), words(candidate)
    return _edits(true, claimed) / max(len(true), len(claimed)) if true else None


def match_one_to_one(
    references: Sequence[str], candidates: Sequence[str], score: Callable[[str, str], float]
) -> list[Match]:
    """Return the pairs of largest total score, by reference, no text used twice (Hungarian algorithm).

    ``score(reference, candidate)`` is finite and not negative. A pair that scores 0 is no match and left
    out, as is a reference for which no candidate remains: both count 0.
    """
    shape = len(references), len(candidates)
    table = np.array([[score(r, c) for c in candidates] for r in references], np.float64).reshape(shape)
    rows, columns = linear_sum_assignment(table, maximize=True)
    pairs = (Match(int(r), int(c), float(table[r, c])) for r, c in zip(rows, columns, strict=True))
    return [pair for pair in pairs if pair.score > 0]


def reconstruction_scores(references: Sequence[str], candidates: Sequence[str]) -> ReconstructionScores:
    """Return the scores of every reference against its candidate in the best one-to-one matching.

    One matching serves all metrics: the one of largest total ROUGE-1 + ROUGE-L, and one more for a text that is the
    same in every character, so that words, their order and their marks decide.
    """
    pairs = match_one_to_one(references, candidates, _likeness)
    given = {pair.reference: candidates[pair.candidate] for pair in pairs}
    texts = [(reference, given.get(i, "")) for i, reference in enumerate(references)]
    return ReconstructionScores(
        rouge1=_array(rouge_n(*pair, n=1) for pair in texts),
        rouge2=_array(rouge_n(*pair, n=2) for pair in texts),
        rouge_l=_array(rouge_l(*pair) for pair in texts),
        edit=_array(edit_distance(*pair) for pair in texts),
        exact=_array(_exact(*pair) for pair in texts),
        exact_with_marks=_array(_exact_with_marks(*pair) for pair in texts),
        candidates=len(candidates),
        matched=len(pairs),
    )


def mean_defined(scores: Floats) -> DefinedMean:
    """Return the mean over the references where a metric is defined, with the counts beside it."""
    defined = scores[~np.isnan(scores)]
    value = float(defined.mean()) if len(defined) else None
    return DefinedMean(value, len(defined), len(scores) - len(defined))


def token_scores(true: Collection[Hashable], claimed: Collection[Hashable]) -> TokenScores:
    """Score claimed tokens against the true ones as sets: how often a token occurs plays no part.

    Tokens are ids, or ids with their places; they are compared as they are.
    """
    return _count_scores(Counter(set(true)), Counter(set(claimed)))


def token_multiset_scores(true: Collection[int], claimed: Collection[int]) -> TokenScores:
    """Score claimed token ids against the true ones as multisets: each copy is a claim of its own."""
    return _count_scores(Counter(true), Counter(claimed))


def _count_scores(true: Counter[_T], claimed: Counter[_T]) -> TokenScores:
    return _scores(true.total(), claimed.total(), hits=(true & claimed).total())


def _scores(true: int, claimed: int, *, hits: int) -> TokenScores:
    precision = hits / claimed if claimed else None
    recall = hits / true if true else None
    f1 = 2 * hits / (true + claimed) if true else None
    return TokenScores(precision, recall, f1, true, claimed, hits)


def _likeness(reference: str, candidate: str) -> float:
    shared = (rouge_n(reference, candidate, n=1) or 0.0) + (rouge_l(reference, candidate) or 0.0)
    return shared + (_exact_with_marks(reference, candidate) or 0.0)


def _exact(reference: str, candidate: str) -> float | None:
    true = words(reference)
    return float(true == words(candidate)) if true else None


def _exact_with_marks(reference: str, candidate: str) -> float | None:
    true = characters(reference)
    same = true == characters(candidate) and words(reference) == words(candidate)
    return float(same) if true else None


def _ngrams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(text[i:] for i in range(n)), strict=False))


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, a row of the table in the bits of an integer.

    After Hyyrö (Bit-parallel LCS-length computation revisited, 2004): a zero bit at place i says that the
    subsequence grows with word i of ``one``.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    everywhere = (1 << len(one)) - 1
    row = everywhere
    for word in other:
        here = row & places.get(word, 0)
        row = ((row + here) | (row - here)) & everywhere
    return len(one) - row.bit_count()


def _edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the Levenshtein distance of two texts in words, a row of the table at a time."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        above, row = row, [i]
        for j, mate in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != mate)))
    return row[-1]


def _array(scores: Iterable[float | None]) -> Floats:
    return np.array([np.nan if score is None else score for score in scores], np.float64)
