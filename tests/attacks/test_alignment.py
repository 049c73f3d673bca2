"""What candidates account for in updates that are made here from known parts."""

import numpy as np
import pytest

from qlorabench.attacks._alignment import Moments, alignment, cosine, regression

N, P, MEMBERS = 40, 4000, np.arange(40) < 10


def moments(directions, updates):
    return Moments(directions @ directions.T, updates @ directions.T, (updates**2).sum(1), P)


def directions(rng, *, shared=0.0):
    """Unit-scale directions; ``shared`` is the size of a part that all of them have."""
    return rng.normal(size=(N, P)) + shared * rng.normal(size=P)


def gap(scores):
    """How far the lowest member is above the highest other, in standard deviations of the others."""
    return (scores[MEMBERS].min() - scores[~MEMBERS].max()) / scores[~MEMBERS].std()


def test_each_statistic_is_what_its_formula_says():
    rng = np.random.default_rng(0)
    x, y = directions(rng), rng.normal(size=(2, P))
    rounds = [moments(x, y), moments(2 * x, y)]
    expected = y @ x.T / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(cosine(rounds), 2 * expected / np.linalg.norm(y, axis=1, keepdims=True))
    np.testing.assert_allclose(alignment(rounds), 3 * expected / 5**0.5)


@pytest.mark.parametrize("statistic", [cosine, alignment, regression])
def test_members_stand_out_where_directions_are_independent(statistic):
    rng = np.random.default_rng(1)
    x = directions(rng)
    assert gap(statistic([moments(x, x[MEMBERS].sum(0, keepdims=True))])[0]) > 2


def test_the_regression_sees_through_what_all_candidates_share():
    rng = np.random.default_rng(2)
    x = directions(rng, shared=3.0)
    seen = [moments(x, x[MEMBERS].sum(0, keepdims=True) + 0.3 * rng.normal(size=(1, P)))]
    assert gap(regression(seen)[0]) > 2 * gap(alignment(seen)[0])


def test_scale_and_length_change_no_ranking():
    rng = np.random.default_rng(3)
    x = directions(rng)
    y = x[MEMBERS].sum(0, keepdims=True) + rng.normal(size=(1, P))
    lengths = rng.uniform(0.1, 10, (N, 1))
    np.testing.assert_allclose(regression([moments(x, y)]), regression([moments(lengths * x, 7 * y)]), rtol=1e-3)


def test_under_noise_alone_the_regression_is_standard_normal():
    rng = np.random.default_rng(4)
    x, y = directions(rng, shared=1.0), rng.normal(size=(50, P))
    scores = regression([moments(x, y)])
    assert abs(scores.mean()) < 0.2
    assert 0.7 < scores.std() < 1.3


def test_an_update_of_zeros_and_a_gradient_of_zeros_score_nothing():
    x = directions(np.random.default_rng(5))
    x[3] = 0
    seen = [moments(x, np.vstack([np.zeros(P), x[5]]))]
    for statistic in (cosine, alignment, regression):
        scores = statistic(seen)
        assert np.isfinite(scores).all()
        assert not scores[0].any()
        assert scores[1].argmax() == 5
