import math

import numpy as np
import pytest

from qlorabench.scoring.score import Score
from qlorabench.scoring.utility import accuracy, gain, learned, perplexity

RNG = np.random.default_rng


def test_perplexity_weighs_tokens_alike():
    texts = [np.full(9, 1.0), np.full(1, 3.0)]
    assert perplexity("p", texts, rng=RNG(0)).value == pytest.approx(math.exp(12 / 10))


def test_a_uniform_guess_has_the_vocabulary_as_its_perplexity():
    found = perplexity("p", [np.full(n, math.log(50)) for n in (3, 5, 8)], rng=RNG(0))
    assert (found.value, found.low, found.high) == pytest.approx((50, 50, 50))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    inside = 0
    for seed in range(60):
        rng = RNG(seed)
        texts = [rng.gamma(2.0, 1.0, rng.integers(2, 9)) + rng.normal(0, 0.5) for _ in range(40)]
        found = perplexity("p", texts, rng=rng)
        inside += found.low <= math.exp(2.0) <= found.high
    assert inside >= 51


@pytest.mark.parametrize("texts", [[], [np.empty(0)], [np.full(3, 800.0), np.full(3, 900.0)]])
def test_what_has_no_perplexity_is_missing(texts):
    assert perplexity("p", texts, rng=RNG(0)).value is None


def test_accuracy_has_its_exact_interval():
    found = accuracy("a", np.array([1.0] * 8 + [0.0] * 2))
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((0.4439, 0.9748), abs=1e-4)


def test_a_gain_is_told_although_rows_differ_more_than_systems():
    rng = RNG(0)
    hard = rng.normal(5, 3, 60)
    small = gain("g", hard - (hard - rng.normal(0.2, 0.1, 60)), rng=rng)
    assert 0.1 < small.low < small.value < small.high < 0.3
    assert learned([small])


@pytest.mark.parametrize("mean", [0.0, -0.5])
def test_no_gain_is_no_learning(mean):
    none = gain("g", RNG(1).normal(mean, 1, 200), rng=RNG(2))
    assert not learned([none])
    assert not learned([Score("g", 1.0, 0.5, 1.5, 9), none]), "it has to beat all that needs no training"


def test_a_gain_on_one_row_shows_nothing():
    assert not learned([gain("g", np.ones(1), rng=RNG(0))])
