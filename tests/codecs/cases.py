"""Codecs and inputs that the tests of this folder share."""

import numpy as np
import torch
from hypothesis import strategies as st

from qlorabench.codecs import CODEBOOKS, BlockCodec, allowed_bits

TABLES = [(name, bits) for name in CODEBOOKS for bits in allowed_bits(name)]


def codec(name="normal-float", bits=4, block_size=64, rounding="nearest", double_quantization=False):
    return BlockCodec(name, bits, block_size, rounding, double_quantization)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def codecs(draw, rounding=("nearest", "stochastic"), double_quantization=(False, True)):
    name, bits = draw(st.sampled_from(TABLES))
    choices = draw(st.sampled_from(rounding)), draw(st.sampled_from(double_quantization))
    return BlockCodec(name, bits, draw(st.integers(1, 40)), *choices)


@st.composite
def segments(draw):
    """Gaussian tensors of odd lengths and many magnitudes, with zeros and ties among them."""
    seed, lengths = draw(st.integers(0, 2**32)), draw(st.lists(st.integers(1, 90), min_size=1, max_size=4))
    noise = np.random.default_rng(seed)
    return [_segment(noise, length) for length in lengths]


def _segment(noise, length):
    values = noise.standard_normal(length) * 10.0 ** noise.integers(-12, 12)
    values[noise.random(length) < 0.2] = 0.0
    if noise.random() < 0.3:
        values = np.round(values * 4) / 4
    return torch.from_numpy(values.astype(np.float32))
