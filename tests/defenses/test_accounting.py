"""The noise of DP-SGD holds its promise at any target, and is found within seconds."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from qlorabench.defenses._accounting import LEAST, MOST, needed, spent
from qlorabench.defenses.dp_sgd import DpSgd
from qlorabench.errors import UserError
from qlorabench.federation.defense import Schedule


def opacus_spends(noise, delta, rate, steps):
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(3.0, 0.2, 48), (1.0, 0.05, 240)])
def test_ordinary_targets_need_the_noise_that_opacus_finds(epsilon, rate, steps):
    from opacus.accountants.utils import get_noise_multiplier

    noise = needed(epsilon, 1e-5, rate, steps)
    theirs = get_noise_multiplier(
        target_epsilon=epsilon,
        target_delta=1e-5,
        sample_rate=rate,
        steps=steps,
        accountant="prv",
        epsilon_tolerance=0.01,
    )
    assert noise == pytest.approx(theirs, rel=0.01)
    assert 0.99 * epsilon <= opacus_spends(noise, 1e-5, rate, steps) <= epsilon


@pytest.mark.parametrize("epsilon", [LEAST, 0.3, 100.0, MOST])
@pytest.mark.parametrize(("rate", "steps"), [(0.1, 20), (1.0, 20)])
def test_far_targets_are_met_within_a_hundredth(epsilon, rate, steps):
    noise = needed(epsilon, 1e-5, rate, steps)
    assert 0.99 * epsilon <= spent(noise, 1e-5, rate, steps) <= epsilon
    assert noise == float(f"{noise:.4g}")


@pytest.mark.parametrize(("noise", "steps", "delta"), [(1.0, 1, 1e-5), (5.0, 40, 1e-5), (1.0, 1, 1e-10)])
def test_a_client_whose_every_row_is_in_every_batch_is_accounted_exactly(noise, steps, delta):
    epsilon = spent(noise, delta, 1.0, steps)
    signal = math.sqrt(steps) / noise
    # what the best test of one row makes of the noise: P[loss > epsilon] - e^epsilon P[loss' > epsilon]
    ends = stats.norm.sf(epsilon / signal - signal / 2), stats.norm.sf(epsilon / signal + signal / 2)
    assert ends[0] - math.exp(epsilon) * ends[1] == pytest.approx(delta, rel=1e-4)
    assert epsilon <= opacus_spends(noise, delta, 1 - 1e-7, steps) <= epsilon + 0.02


def test_too_little_noise_to_be_told_is_no_protection():
    assert spent(1e-4, 1e-5, 0.25, 1) == np.inf


@pytest.mark.parametrize("wrong", [{"epsilon": 1000}, {"epsilon": 0.01}, {"delta": 1e-12}, {"clip_norm": float("inf")}])
def test_targets_that_cannot_be_accounted_are_refused_with_their_range(wrong):
    with pytest.raises(ValidationError, match=r"(greater|less) than or equal to|finite number"):
        DpSgd.Config(**wrong)


def test_a_delta_that_protects_no_row_is_refused():
    schedule = Schedule(rounds=1, local_steps=1, batch_size=4, client_rows=(4, 40))
    with pytest.raises(UserError, match=r"delta 0\.1 is no protection for a client of 40 rows"):
        DpSgd(DpSgd.Config(delta=0.1)).public_facts(schedule)


def test_a_client_of_one_row_is_told_what_it_spends():
    schedule = Schedule(rounds=2, local_steps=2, batch_size=4, client_rows=(1,))
    (client,) = DpSgd(DpSgd.Config(epsilon=300)).public_facts(schedule)["clients"]
    assert client["sample_rate"] == 1.0
    assert 297 <= client["epsilon"] <= 300
