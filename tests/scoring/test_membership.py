import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from qlorabench.scoring.membership import (
    advantage,
    advantage_leakage,
    auc,
    auc_leakage,
    coin_flip_control,
    leakage,
    membership_scores,
    tpr_at_fpr,
)

LEAKAGES = [auc_leakage, advantage_leakage]


def rng(*seed):
    return np.random.default_rng(seed)


def sample(inside, outside, *, shift=0.0, seed=0):
    scores, members = rng(seed).normal(size=inside + outside), np.arange(inside + outside) < inside
    return scores + shift * members, members


@st.composite
def tied_samples(draw):
    members = draw(hnp.arrays(bool, st.integers(2, 40)).filter(lambda m: m.any() and not m.all()))
    return draw(hnp.arrays(float, len(members), elements=st.integers(-3, 3).map(float))), members


@settings(max_examples=50, deadline=None)
@given(tied_samples())
def test_auc_agrees_with_sklearn_ties_and_all(drawn):
    scores, members = drawn
    assert auc(scores, members=members) == pytest.approx(roc_auc_score(members, scores))
    whole = membership_scores(scores, members=members, rng=rng(0), fprs=(), draws=2)
    assert whole.auc.value == pytest.approx(roc_auc_score(members, scores))


@settings(max_examples=50, deadline=None)
@given(tied_samples(), st.floats(0, 1))
def test_tpr_at_fpr_is_the_best_threshold_within_the_target(drawn, fpr):
    scores, members = drawn
    claims = [scores > threshold for threshold in [-np.inf, *scores]]
    allowed = [c[members].mean() for c in claims if c[~members].mean() <= fpr]
    point = tpr_at_fpr(scores, members=members, fpr=fpr)
    assert point.tpr.value == max(allowed)
    assert point.fpr.value <= fpr
    assert point.tpr.value == np.mean(scores[members] > point.threshold)


def test_a_target_below_one_nonmember_stands_above_them_all():
    scores, members = np.array([3.0, 2.0, 5.0, 2.0, 1.0]), np.array([1, 1, 1, 0, 0], bool)
    point = tpr_at_fpr(scores, members=members, fpr=0.001)
    assert (point.threshold, point.fpr.value, point.tpr.n) == (2.0, 0.0, 3)
    assert point.tpr.value == pytest.approx(2 / 3)
    assert point.fpr.high > 0.8, "two non-members cannot vouch for a rate of 0.001"


def test_rounding_does_not_cost_a_nonmember():
    scores, members = np.arange(101.0), np.arange(101) == 100
    assert tpr_at_fpr(scores, members=members, fpr=0.29).fpr.value == 0.29


def test_advantage_of_scores_that_know_nothing_is_zero_on_average():
    found = [advantage(*sample(20, 20, seed=i)[:1], members=np.arange(40) < 20, rng=rng(i)) for i in range(400)]
    assert np.mean(found) == pytest.approx(0, abs=3 * np.std(found) / 20)
    assert min(found) < 0


def test_advantage_of_known_shift():
    scores, members = sample(3000, 3000, shift=1.0)
    assert advantage(scores, members=members, rng=rng(1)) == pytest.approx(0.383, abs=0.03)


def test_advantage_of_perfect_and_of_constant_scores():
    members = np.arange(40) < 20
    assert advantage(members * 1.0, members=members, rng=rng(0)) == 1.0
    assert advantage(np.zeros(40), members=members, rng=rng(0)) == 0.0


def test_advantage_needs_both_sides_in_both_halves():
    members = np.array([True, False, False, False])
    assert advantage(np.arange(4.0), members=members, rng=rng(0)) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 9))
def test_coin_flip_control_keeps_scores_and_splits_evenly(n, seed):
    scores = rng(seed).normal(size=n)
    control = coin_flip_control(scores, rng=rng(seed))
    np.testing.assert_array_equal(control.scores, scores)
    assert abs(2 * control.members.sum() - n) <= 1
    assert 0 <= auc(control.scores, members=control.members) <= 1


def test_leakage_is_the_way_from_control_to_best():
    assert leakage(0.75, 0.5) == 0.5
    assert leakage(0.4, 0.5) == 0.0
    assert leakage(1.0, 0.5) == 1.0
    assert leakage(0.3, 0.1, best=0.5) == pytest.approx(0.5)
    assert leakage(1.0, 1.0) is None


@pytest.mark.parametrize("measure", LEAKAGES)
def test_scores_that_know_nothing_seldom_leak(measure):
    """400 samples: 2.5 % are 10, with a standard deviation of 3.1."""
    found = [
        measure(*sample(30, 30, seed=i)[:1], members=np.arange(60) < 30, rng=rng(i), flips=4, draws=100)
        for i in range(400)
    ]
    assert sum(interval.low > 0 for interval in found) <= 18


@pytest.mark.parametrize("measure", LEAKAGES)
def test_real_separation_leaks(measure):
    scores, members = sample(100, 100, shift=1.5)
    found = measure(scores, members=members, rng=rng(1), draws=200)
    assert 0.1 < found.low < found.value < found.high < 1
    assert found.n == 200


@pytest.mark.parametrize("measure", LEAKAGES)
def test_leakage_of_the_wrong_direction_is_none_at_all(measure):
    scores, members = sample(50, 50, shift=-2.0)
    assert measure(scores, members=members, rng=rng(1), draws=50).low == 0.0


def test_few_nonmembers_have_no_interval_and_a_reason():
    scores, members = sample(10, 2)
    found = auc_leakage(scores, members=members, rng=rng(0), draws=100)
    assert found.low is None
    assert found.reason


def test_every_metric_is_deterministic_and_counted():
    scores, members = sample(40, 60, shift=1.0)
    one, two = (membership_scores(scores, members=members, rng=rng(3), draws=100) for _ in range(2))
    assert one == two
    assert (one.members, one.nonmembers, one.auc.n) == (40, 60, 100)
    assert [point.target for point in one.operating_points] == [0.001, 0.01, 0.1]
    assert one.auc.low < one.auc.value < one.auc.high
    assert one.advantage.low < one.advantage.value < one.advantage.high


def test_metrics_see_only_the_order_of_scores():
    scores, members = sample(30, 30, shift=1.0)
    plain, bent = (membership_scores(s, members=members, rng=rng(3), draws=50) for s in (scores, np.exp(scores)))
    assert (plain.auc, plain.advantage) == (bent.auc, bent.advantage)


@pytest.mark.parametrize(
    ("scores", "members", "match"),
    [
        ([0.0, np.nan], [True, False], "1 of 2 scores are not finite"),
        ([0.0, np.inf], [True, False], "not finite"),
        ([0.0, 1.0], [True, True], "members and non-members"),
        ([0.0, 1.0], [1, 0], "booleans"),
        ([0.0, 1.0], [True], "booleans"),
    ],
)
def test_unfit_input_is_refused(scores, members, match):
    for measure in (advantage, membership_scores, *LEAKAGES):
        with pytest.raises(ValueError, match=match):
            measure(np.array(scores), members=np.array(members), rng=rng(0))
    with pytest.raises(ValueError, match=match):
        auc(np.array(scores), members=np.array(members))


@pytest.mark.parametrize(("scores", "match"), [([1.0], "two"), ([1.0, np.nan], "finite"), ([[1.0]], "shape")])
def test_coin_flip_control_refuses_unfit_scores(scores, match):
    with pytest.raises(ValueError, match=match):
        coin_flip_control(np.array(scores), rng=rng(0))


def test_counts_and_targets_have_a_range():
    scores, members = sample(5, 5)
    with pytest.raises(ValueError, match="fpr"):
        tpr_at_fpr(scores, members=members, fpr=1.5)
    with pytest.raises(ValueError, match="flips"):
        auc_leakage(scores, members=members, rng=rng(0), flips=0)
    with pytest.raises(ValueError, match="draws"):
        membership_scores(scores, members=members, rng=rng(0), draws=0)
