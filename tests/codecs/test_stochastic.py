import numpy as np
import pytest
import torch

from qlorabench.codecs import codebook

from .cases import TABLES, codec, normal, rng

TRIALS = 4000


@pytest.mark.parametrize(("name", "bits"), TABLES)
def test_mean_of_many_decodings_is_the_input(name, bits):
    coder, x, levels = codec(name, bits, 16, "stochastic"), normal(16), codebook(name, bits)
    x[0] = 3.0  # the dynamic map does not reach -1, so the absmax must be positive
    x[1] = 0.0
    payload = coder.encode([x.repeat(TRIALS)], rng=rng(1))
    decoded = coder.decode(payload, lengths=[16 * TRIALS])[0].view(TRIALS, 16)
    drift = decoded.double().mean(dim=0) - x
    # A two-point variable on a gap has a standard deviation of at most half the gap.
    deviation = float((levels[1:] - levels[:-1]).max()) / 2 * 3.0
    assert float(drift.abs().max()) < 5 * deviation / TRIALS**0.5
    assert bool((decoded[:, :2] == x[:2]).all())


def test_odds_are_proportional_to_distance():
    coder = codec("uniform-int", 2, 4, "stochastic")
    x = torch.tensor([1.0, 0.25, -0.6, 0.0])
    decoded = torch.stack(coder.decode(coder.encode([x] * TRIALS, rng=rng(2)), lengths=[4] * TRIALS))
    torch.testing.assert_close(decoded.abs().mean(dim=0), x.abs(), atol=0.04, rtol=0)
    assert decoded[:, 1].unique().tolist() == [0, 1]
    assert decoded[:, 2].unique().tolist() == [-1, 0]


def test_levels_stay_where_they_are():
    levels = codebook("normal-float", 3)
    coder = codec("normal-float", 3, 8, "stochastic")
    assert torch.equal(coder.decode(coder.encode([levels], rng=rng()), lengths=[8])[0], levels)


def test_same_generator_state_gives_the_same_bytes():
    coder, x = codec(rounding="stochastic"), normal(1000)
    first, again, other = (coder.encode([x], rng=rng(seed))["codes"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nearest_draws_nothing():
    generator = np.random.default_rng(5)
    codec(double_quantization=True).encode([normal(1000)], rng=generator)
    assert generator.random() == np.random.default_rng(5).random()
