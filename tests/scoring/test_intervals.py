import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qlorabench.scoring.intervals import (
    FEW,
    FEW_AT_AN_END,
    Interval,
    bootstrap,
    bootstrap_two,
    clopper_pearson,
    interval_of,
    mean_of_shares,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_clopper_pearson_agrees_with_scipy(counts, level):
    successes, trials = counts
    ours = clopper_pearson(successes, trials, level=level)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="exact")
    assert (ours.value, ours.n) == (successes / trials, trials)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_clopper_pearson_of_no_success_is_closed_form():
    assert clopper_pearson(0, 30).high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert clopper_pearson(0, 30).low == 0.0


def test_no_trials_are_missing_not_zero():
    assert clopper_pearson(0, 0) == Interval(None, None, None, 0, "no trials")


@pytest.mark.parametrize("low", [0.0, 0.5])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_mean_of_few_shares_is_covered_as_often_as_the_level_says(count, low):
    for odds in (0.1, 0.5, 0.9):
        drawn = np.where(rng(1).random((300, count)) < odds, 1.0, low)
        found = [mean_of_shares(shares, rng=rng()) for shares in drawn]
        mean = odds + (1 - odds) * low
        assert np.mean([interval.low <= mean <= interval.high for interval in found]) >= 0.95


def test_shares_that_are_rates_have_the_exact_interval():
    shares = np.array([1.0] * 30 + [0.0] * 20)
    assert mean_of_shares(shares, rng=rng(), level=0.9) == clopper_pearson(30, 50, level=0.9)
    assert mean_of_shares(np.full(3, 0.1), rng=rng()).value == pytest.approx(0.1)
    assert mean_of_shares(np.full(FEW, 0.1), rng=rng()).high > 0.11


def test_many_shares_are_resampled():
    shares = rng(2).random(FEW)
    found = mean_of_shares(shares, rng=rng(3))
    assert found == bootstrap(shares, np.mean, rng=rng(3))
    assert found.high - found.low < mean_of_shares(shares[1:], rng=rng(3)).high - found.low


def test_shares_at_an_end_take_more_to_be_many():
    shares = np.array([*rng(2).random(FEW_AT_AN_END - 2), 1.0])
    counted, resampled = (mean_of_shares(some, rng=rng(3)) for some in (shares, np.array([*shares, 1.0])))
    exact = clopper_pearson(float(shares.sum()), len(shares))
    assert (counted.low, counted.high) == pytest.approx((exact.low, exact.high))
    assert resampled.high - resampled.low < 0.7 * (counted.high - counted.low)


def test_no_shares_have_no_mean():
    assert mean_of_shares(np.array([]), rng=rng()) == Interval(None, None, None, 0, "no units")


@pytest.mark.parametrize("shares", [[-0.1, 0.5], [0.5, 1.1]])
def test_shares_lie_between_0_and_1(shares):
    with pytest.raises(ValueError, match="shares"):
        mean_of_shares(np.array(shares), rng=rng())


@pytest.mark.parametrize("counts", [(-1, 3), (4, 3)])
def test_clopper_pearson_refuses_impossible_counts(counts):
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(*counts)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_levels_lie_between_0_and_1(level):
    with pytest.raises(ValueError, match="level"):
        clopper_pearson(1, 2, level=level)
    with pytest.raises(ValueError, match="level"):
        bootstrap(np.arange(3), np.mean, rng=rng(), level=level)


def test_bootstrap_of_a_mean_is_near_the_student_interval():
    units = rng(1).normal(size=40)
    found = bootstrap(units, np.mean, rng=rng(2), draws=4000)
    low, high = stats.t.interval(0.95, 39, loc=units.mean(), scale=stats.sem(units))
    assert found.value == pytest.approx(units.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)


def test_bootstrap_covers_the_truth_of_few_units_as_often_as_it_says():
    normal = rng(3).normal(size=(200, 8))
    found = [bootstrap(units, np.mean, rng=rng(i), draws=100) for i, units in enumerate(normal)]
    assert 0.92 <= np.mean([interval.low <= 0 <= interval.high for interval in found]) <= 0.98


def test_bootstrap_resamples_whole_rows():
    units = np.column_stack([np.arange(20), -np.arange(20)])
    assert bootstrap(units, lambda rows: rows.sum(), rng=rng()) == Interval(0.0, 0.0, 0.0, 20)


def test_bootstrap_two_keeps_each_sample_to_itself():
    found = bootstrap_two(np.ones(4), np.zeros(9), lambda p, n: p.mean() - n.mean() + 0 * len(n), rng=rng())
    assert found == Interval(1.0, 1.0, 1.0, 13)


def test_same_generator_same_interval():
    units = rng(5).normal(size=30)
    assert bootstrap(units, np.mean, rng=rng(7)) == bootstrap(units, np.mean, rng=rng(7))
    assert bootstrap(units, np.mean, rng=rng(7)) != bootstrap(units, np.mean, rng=rng(8))


def test_too_few_units_have_no_interval():
    none, one = (bootstrap(np.ones(n), np.mean, rng=rng()) for n in (0, 1))
    assert (none.value, none.low, none.reason) == (None, None, "no units")
    assert (one.value, one.low, one.high, one.n) == (1.0, None, None, 1)
    assert "two units" in one.reason


def test_undefined_resamples_are_said_not_dropped():
    found = bootstrap(np.array([0.0, 0.0, 1.0]), lambda u: u.sum() if u.any() else np.nan, rng=rng())
    assert found.value == 1.0
    assert found.low is None
    assert "resamples" in found.reason


def test_undefined_value_is_missing():
    assert interval_of(np.zeros(5), value=np.nan, n=5, fewest=5).value is None
