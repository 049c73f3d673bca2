"""What a leak over seeds promises, simulated: normal estimates with known noise, cut as leakages are."""

import numpy as np
import pytest

from qlorabench.records.leaderboard import leaderboard
from qlorabench.records.over_seeds import Estimate, over_seeds
from tests.records.rows import leak

NOISE = 0.03
"""Standard error of one seed."""
DRAWS = 3000
MARGIN = 3 * np.sqrt(0.025 * 0.975 / DRAWS)
"""Three standard errors of a simulated rate of .025."""


def draw(rng, *, effect, seeds, between=0.0):
    """The estimates of ``seeds`` seeds, whose own effects vary by ``between`` around ``effect``."""
    own = effect + between * rng.standard_normal(seeds) + NOISE * rng.standard_normal(seeds)
    ends = np.clip([own, own - 1.96 * NOISE, own + 1.96 * NOISE], 0, 1).T
    return [Estimate(*map(float, row)) for row in ends]


def over(effect, seeds, between=0.0, draws=DRAWS):
    rng = np.random.default_rng(seeds)
    return [over_seeds(draw(rng, effect=effect, seeds=seeds, between=between)) for _ in range(draws)]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
def test_without_an_effect_the_lower_end_is_above_0_no_more_often_than_the_level(seeds):
    rate = np.mean([found.evident for found in over(0.0, seeds)])
    assert rate <= 0.025 + MARGIN, rate


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_nor_much_more_often_where_seeds_vary_as_much_as_they_are_noisy(seeds):
    rate = np.mean([found.evident for found in over(0.0, seeds, NOISE)])
    assert rate <= 0.035 + MARGIN, rate


@pytest.mark.parametrize(("between", "least"), [(0.0, 0.95), (NOISE, 0.935), (2 * NOISE, 0.85)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_effect_is_covered(seeds, between, least):
    covered = np.mean([found.low <= 0.5 <= found.high for found in over(0.5, seeds, between)])
    assert covered >= least - 0.012, covered


def test_a_leak_that_one_seed_shows_is_told_by_several():
    """More seeds of the same leak make it no less sure."""
    told = [np.mean([found.evident for found in over(3 * NOISE, seeds, draws=1000)]) for seeds in (1, 2, 3, 5)]
    assert told == sorted(told), told


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_what_is_shown_is_no_selection_of_seeds(seeds):
    """An attack that works on the twin, now and then, and does nothing to the system: the mean shown is the mean."""
    rng = np.random.default_rng(0)
    shown, all_means = [], []
    for _ in range(DRAWS):
        works = over_seeds(draw(rng, effect=2 * NOISE, seeds=seeds)).evident
        system = over_seeds(draw(rng, effect=0.0, seeds=seeds))
        all_means.append(system.value)
        if works:
            shown.append(system.value)
    assert len(shown) > 300
    error = np.std(shown) / np.sqrt(len(shown)) + np.std(all_means) / np.sqrt(DRAWS)
    assert abs(np.mean(shown) - np.mean(all_means)) < 3 * error


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_several_attacks_the_worst_is_a_choice(seeds):
    """The level is that of one attack: of four, one is above 0 in up to four times as many draws, and no more."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(500):
        rows = [
            leak(e.value, e.low, e.high, attack=f"a{attack}", seed=seed)
            for attack in range(4)
            for seed, e in enumerate(draw(rng, effect=0.0, seeds=seeds))
        ]
        found.append(leaderboard(rows).tasks[0].rows[0].leaks["membership"].low > 0)
    assert np.mean(found) <= 4 * 0.025 + 3 * np.sqrt(0.1 * 0.9 / 500)


def test_one_seed_keeps_its_own_interval():
    assert over_seeds([Estimate(0.3, 0.1, 0.4)]) == Estimate(0.3, 0.1, 0.4)


def test_three_seeds_of_which_one_leaks():
    """The mean of .046, .176 and .037 is .086, not the .176 of the one that could be told from none."""
    found = over_seeds([Estimate(0.046, 0.0, 0.12), Estimate(0.176, 0.09, 0.25), Estimate(0.037, 0.0, 0.11)])
    assert found.value == pytest.approx(0.0863, abs=1e-4)
    assert found.low < found.value < found.high < 0.176


def test_seeds_that_are_exact_are_exact_together():
    assert over_seeds([Estimate(1.0, 1.0, 1.0)] * 3) == Estimate(1.0, 1.0, 1.0)


def test_no_interval_without_any():
    assert over_seeds([Estimate(0.3), Estimate(0.3)]) == Estimate(0.3)
    some = over_seeds([Estimate(0.3), Estimate(0.3, 0.2, 0.4)])
    assert some.low is not None
    assert some.low > 0.15


def test_a_value_lies_within_its_interval():
    for found in (*over(0.0, 3, draws=200), *over(0.99, 3, draws=200)):
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
