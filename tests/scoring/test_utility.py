import math

import numpy as np
import pytest

from qlorabench.scoring.score import Score
from qlorabench.scoring.utility import accuracy, learned, perplexity

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


@pytest.mark.parametrize(
    ("metric", "control", "expected"),
    [
        ("perplexity_server", 31.0, True),
        ("perplexity_server", 29.0, False),
        ("perplexity_server", 19.0, False),
        ("accuracy_server", 19.0, True),
        ("accuracy_server", 31.0, False),
        ("perplexity_server", None, None),
    ],
)
def test_learned_is_beyond_the_control_on_the_better_side(metric, control, expected):
    assert learned(Score(metric, 25.0, 20.0, 30.0, 10, control=control)) is expected
