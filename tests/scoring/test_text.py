import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from qlorabench.scoring.text import (
    Match,
    edit_distance,
    match_one_to_one,
    mean_defined,
    reconstruction_scores,
    rouge_l,
    rouge_n,
    token_multiset_scores,
    token_scores,
)

PEER = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
WORDS = st.lists(st.sampled_from(["the", "cat", "Cat", "don't", "x-ray", "42", "_"]), max_size=12)
TEXTS = WORDS.map(" ".join) | st.text(st.characters(max_codepoint=127), max_size=20)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_rouge_of_ascii_agrees_with_rouge_score(reference, candidate):
    peer = PEER.score(reference, candidate)
    ours = {
        "rouge1": rouge_n(reference, candidate, n=1),
        "rouge2": rouge_n(reference, candidate, n=2),
        "rougeL": rouge_l(reference, candidate),
    }
    for name, value in ours.items():
        assert (value or 0.0) == pytest.approx(peer[name].fmeasure, abs=1e-12)


def test_a_reference_too_short_for_the_metric_has_no_score():
    assert rouge_n("Hello!", "hello", n=1) == 1.0
    assert rouge_n("Hello!", "hello", n=2) is None
    assert rouge_n("...", "hello", n=1) is None
    assert rouge_l("...", "hello") is None
    assert rouge_n("two words", "two", n=2) == 0.0


def naive_edits(one, other):
    """Levenshtein by its definition: the best of three ways to treat the last words."""
    if not one or not other:
        return len(one) + len(other)
    same = naive_edits(one[:-1], other[:-1]) + (one[-1] != other[-1])
    return min(same, naive_edits(one[:-1], other) + 1, naive_edits(one, other[:-1]) + 1)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.sampled_from("abc"), max_size=5)] * 2)
def test_edit_distance_agrees_with_its_definition(one, other):
    expected = naive_edits(one, other) / max(len(one), len(other)) if one else None
    assert edit_distance(" ".join(one), " ".join(other)) == expected


def test_edit_distance_of_what_differs_in_a_word_an_order_and_all():
    assert edit_distance("The cat sat.", "the cat sat") == 0.0
    assert edit_distance("the cat sat", "the dog sat") == pytest.approx(1 / 3)
    assert edit_distance("the cat sat", "") == edit_distance("a", "b c d") == 1.0


def test_rouge_n_refuses_no_words():
    with pytest.raises(ValueError, match="at least 1"):
        rouge_n("a", "a", n=0)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 4).flatmap(
        lambda n: st.integers(0, 4).flatmap(
            lambda m: st.lists(st.lists(st.integers(0, 9), min_size=m, max_size=m), min_size=n, max_size=n)
        )
    )
)
def test_matching_is_the_best_of_all_and_reuses_nothing(table):
    n, m = len(table), len(table[0]) if table else 0
    rows, columns = [str(i) for i in range(n)], [str(j) for j in range(m)]
    pairs = match_one_to_one(rows, columns, lambda r, c: table[int(r)][int(c)])
    few = min(n, m)
    best = max(
        sum(table[i][j] for i, j in zip(chosen, given, strict=True))
        for chosen in itertools.permutations(range(n), few)
        for given in itertools.combinations(range(m), few)
    )
    assert sum(pair.score for pair in pairs) == best
    assert len({pair.reference for pair in pairs}) == len({pair.candidate for pair in pairs}) == len(pairs)
    assert all(pair.score > 0 for pair in pairs)


def test_matching_prefers_the_total_over_the_first_come():
    pairs = match_one_to_one(["a b", "a"], ["a", "c"], lambda r, c: rouge_n(r, c, n=1))
    assert pairs == [Match(reference=1, candidate=0, score=1.0)]


def test_one_claim_counts_for_one_reference():
    scores = reconstruction_scores(["the cat sat"] * 3, ["The cat sat!"])
    assert sorted(scores.exact) == sorted(scores.rouge1) == [0.0, 0.0, 1.0]
    assert (scores.candidates, scores.matched) == (1, 1)


def test_every_metric_of_a_mixed_claim():
    scores = reconstruction_scores(["Hello", "one two three", "lost words"], ["three one two", "hello"])
    np.testing.assert_allclose(scores.rouge1, [1, 1, 0])
    np.testing.assert_allclose(scores.rouge2, [np.nan, 0.5, 0])
    np.testing.assert_allclose(scores.rouge_l, [1, 2 / 3, 0])
    np.testing.assert_allclose(scores.edit, [0, 2 / 3, 1])
    np.testing.assert_allclose(scores.exact, [1, 0, 0])
    assert mean_defined(scores.rouge2) == (0.25, 2, 1)


def test_no_claims_score_zero_and_no_references_nothing():
    assert reconstruction_scores(["a b"], []).rouge2.tolist() == [0.0]
    assert reconstruction_scores([], ["a"]).rouge1.shape == (0,)
    assert mean_defined(np.array([np.nan])) == (None, 0, 1)


def test_distinct_tokens_and_copies():
    distinct = token_scores([5, 5, 5, 7], [5, 5, 9])
    assert (distinct.precision, distinct.recall, distinct.f1) == (0.5, 0.5, 0.5)
    copies = token_multiset_scores([5, 5, 5, 7], [5, 5, 9])
    assert (copies.true, copies.claimed, copies.hits) == (4, 3, 2)
    assert (copies.precision, copies.recall, copies.f1) == pytest.approx((2 / 3, 1 / 2, 4 / 7))


def test_missing_sides_of_tokens():
    silent = token_scores([1], [])
    assert (silent.precision, silent.recall, silent.f1) == (None, 0.0, 0.0)
    untrue = token_scores([], [1])
    assert (untrue.precision, untrue.recall, untrue.f1) == (0.0, None, None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_f1_is_the_harmonic_mean(true, claimed):
    for scores in (token_scores(true, claimed), token_multiset_scores(true, claimed)):
        total = scores.precision + scores.recall
        expected = 2 * scores.precision * scores.recall / total if total else 0.0
        assert scores.f1 == pytest.approx(expected)
