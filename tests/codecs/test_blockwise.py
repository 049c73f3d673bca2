import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given

from qlorabench.codecs import codebook, unpack

from .cases import TABLES, codec, codecs, normal, rng, segments


def naive_nearest(segment, *, levels, block_size):
    """One coordinate at a time, in float32 as the codec computes."""
    levels, codes, scales = levels.numpy(), [], []
    for start in range(0, len(segment), block_size):
        block = segment[start : start + block_size].numpy()
        scale = np.abs(block).max() if np.abs(block).max() >= 1e-38 else np.float32(1e-8)
        scales.append(scale)
        for value in block:
            ratio = value * (np.float32(1) / scale) if len(block) == block_size else value / scale
            codes.append(sum(bool(ratio > (a + b) / np.float32(2)) for a, b in itertools.pairwise(levels)))
    return codes, scales


@given(codecs(rounding=["nearest"], double_quantization=[False]), segments())
def test_nearest_codes_match_a_loop_over_coordinates(coder, tensors):
    levels = codebook(coder.codebook, coder.bits)
    loops = [naive_nearest(t, levels=levels, block_size=coder.block_size) for t in tensors]
    codes, scales = (list(itertools.chain(*parts)) for parts in zip(*loops, strict=True))
    payload, lengths = coder.encode(tensors, rng=rng()), [len(t) for t in tensors]
    assert unpack(payload["codes"], levels=levels.numel(), count=sum(lengths)).tolist() == codes
    assert payload["scales"].tolist() == scales
    decoded = torch.cat(coder.decode(payload, lengths=lengths))
    assert decoded.numel() == sum(lengths)
    per_coordinate = np.concatenate(
        [np.repeat(s, coder.block_size)[:n] for (_, s), n in zip(loops, lengths, strict=True)]
    )
    assert torch.equal(decoded, levels[torch.tensor(codes)] * torch.from_numpy(per_coordinate))


@given(codecs(), segments())
def test_payload_is_as_large_as_expected_and_splits_into_the_lengths(coder, tensors):
    lengths = [len(t) for t in tensors]
    payload = coder.encode(tensors, rng=rng())
    assert sum(t.numel() * t.element_size() for t in payload.values()) == coder.expected_bytes(lengths)
    decoded = coder.decode(payload, lengths=lengths)
    assert [len(t) for t in decoded] == lengths
    assert all(t.dtype == torch.float32 for t in decoded)


@given(codecs(), segments())
def test_zeros_decode_to_zero(coder, tensors):
    decoded = coder.decode(coder.encode(tensors, rng=rng()), lengths=[len(t) for t in tensors])
    assert all(bool((y[x == 0] == 0).all()) for x, y in zip(tensors, decoded, strict=True))


@given(codecs(rounding=["nearest"], double_quantization=[False]), segments())
def test_nearest_error_is_at_most_half_the_widest_gap(coder, tensors):
    levels = codebook(coder.codebook, coder.bits)
    reach = max(float((levels[1:] - levels[:-1]).max()) / 2, float(levels[0]) + 1)
    decoded = coder.decode(coder.encode(tensors, rng=rng()), lengths=[len(t) for t in tensors])
    for x, y in zip(tensors, decoded, strict=True):
        assert float((x - y).abs().max()) <= float(x.abs().max()) * (reach + 2**-22)


@pytest.mark.parametrize(("name", "bits"), [t for t in TABLES if t[0] != "dynamic"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_largest_magnitude_of_a_block_is_exact(name, bits, rounding):
    coder, x = codec(name, bits, 32, rounding), normal(50, 32).reshape(-1)
    (y,) = coder.decode(coder.encode([x], rng=rng()), lengths=[1600])
    rows = torch.arange(50)
    largest = x.view(50, 32).abs().argmax(dim=1)
    assert torch.equal(x.view(50, 32)[rows, largest], y.view(50, 32)[rows, largest])


@pytest.mark.parametrize(
    ("bits", "block_size", "double", "expected"),
    [
        (4, 64, False, 4.5),
        (4, 256, False, 4.125),
        (3, 256, False, 3.125),
        (2, 64, False, 2.5),
        (1, 64, False, 2.1),
        (4, 64, True, 4 + 8 / 64 + 32 / (64 * 256)),
    ],
)
def test_bits_per_parameter_are_the_known_rates(bits, block_size, double, expected):
    coder = codec(bits=bits, block_size=block_size, double_quantization=double)
    assert coder.bits_per_parameter == expected
    count = 64 * 256 * 20
    assert coder.expected_bytes([count]) * 8 == count * expected + 32 * double


def test_double_quantization_costs_little_accuracy():
    x = normal(64 * 300)
    plain, double = (codec(double_quantization=d) for d in (False, True))
    error = [float((c.decode(c.encode([x], rng=rng()), lengths=[len(x)])[0] - x).norm()) for c in (plain, double)]
    assert error[0] < error[1] * 1.01 < error[0] * 1.05


def test_double_quantization_of_one_scale_is_exact():
    coder, x = codec(double_quantization=True), normal(64)
    payload = coder.encode([x], rng=rng())
    assert payload["scale_mean"].item() == x.abs().max().item()
    plain = codec()
    assert torch.equal(*(c.decode(c.encode([x], rng=rng()), lengths=[64])[0] for c in (coder, plain)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_input_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="segment 1 holds NaN or infinity"):
        codec().encode([normal(5), torch.tensor([1.0, bad])], rng=rng())


def test_scales_without_a_finite_mean_are_refused():
    with pytest.raises(ValueError, match="too large"):
        codec(block_size=1, double_quantization=True).encode([torch.full((8,), 3e38)], rng=rng())


@pytest.mark.parametrize("bad", [torch.zeros(2, 2), torch.zeros(2).double(), torch.zeros(0)])
def test_input_that_is_not_flat_float32_is_refused(bad):
    with pytest.raises(ValueError, match="segment 0 must be flat, non-empty float32"):
        codec().encode([bad], rng=rng())


def test_nothing_to_encode_is_refused():
    with pytest.raises(ValueError, match="no segments"):
        codec().encode([], rng=rng())


@pytest.mark.parametrize(
    ("double", "broken", "message"),
    [
        (
            False,
            {"codes": torch.zeros(3, dtype=torch.uint8)},
            r"'codes' must be torch.uint8 of shape \(50,\)",
        ),
        (False, {"scales": torch.zeros(9)}, r"'scales' must be torch.float32 of shape \(2,\)"),
        (True, {"scale_codes": torch.zeros(2)}, "'scale_codes' must be torch.uint8"),
        (True, {"scale_scales": torch.zeros(2)}, r"'scale_scales' must be torch.float32 of shape \(1,\)"),
        (True, {"scale_mean": torch.zeros(())}, r"'scale_mean' must be torch.float32 of shape \(1,\)"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(double, broken, message):
    coder = codec(double_quantization=double)
    payload = {**coder.encode([normal(100)], rng=rng()), **broken}
    for reader in (coder.decode, coder.cells):
        with pytest.raises(ValueError, match=message):
            reader(payload, lengths=[100])


def test_a_payload_without_its_scales_is_refused():
    payload = codec().encode([normal(100)], rng=rng())
    with pytest.raises(ValueError, match="no 'scale_codes'; it has codes, scales"):
        codec(double_quantization=True).decode(payload, lengths=[100])
    with pytest.raises(ValueError, match="at least 1"):
        codec().decode(payload, lengths=[])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": 0}, "block_size"),
        ({"rounding": "up"}, "nearest, stochastic"),
        ({"bits": 12}, "1 to 8"),
    ],
)
def test_a_codec_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(codec(), **change)
