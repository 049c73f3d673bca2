"""Equality with bitsandbytes' own tables and quantizers on the CPU."""

import functools

import pytest
import torch

from qlorabench.codecs import dynamic_8bit, fp4, normal_float, unpack

from .cases import codec, normal, rng

FOUR_BIT = {"nf4": ("normal-float", normal_float(4)), "fp4": ("fp4", fp4())}


@functools.cache
def bnb():
    import bitsandbytes.functional as functional

    return functional


def portable_8bit(x, *, block_size):
    """bitsandbytes' device-independent kernel; on the CPU its native one takes precedence."""
    bnb()
    portable = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    kernel = torch.ops.bitsandbytes.quantize_blockwise.default
    return kernel.redispatch(portable, x, bnb().create_dynamic_map(), block_size)


def on_midpoints(levels, *, block_size, absmax):
    """Blocks that start with their absmax, then hold every midpoint, level and float32 neighbour of those."""
    marks = torch.cat([(levels[1:] + levels[:-1]) / 2, levels]) * absmax
    near = [marks] + [torch.nextafter(marks, torch.full_like(marks, e)) for e in (9e9, -9e9)]
    rows = torch.cat(near).clamp(-absmax, absmax).split(block_size - 1)
    padded = [torch.nn.functional.pad(row, (1, block_size - 1 - len(row))) for row in rows]
    blocks = torch.stack(padded)
    blocks[:, 0] = absmax
    return blocks.reshape(-1)


def inputs(levels, *, block_size):
    # Of even length, for an odd one sends bitsandbytes through torch.compile, which takes ten seconds.
    hard = [on_midpoints(levels, block_size=block_size, absmax=a) for a in (1.0, 3.7, 0.0123)]
    zeros = torch.zeros(block_size)
    return torch.cat([*hard, zeros, normal(block_size * 100), normal(10)])


def test_tables_are_equal_bit_for_bit():
    assert torch.equal(normal_float(4), bnb().get_4bit_type("nf4", device="cpu"))
    assert torch.equal(fp4(), bnb().get_4bit_type("fp4", device="cpu").sort().values)
    assert torch.equal(dynamic_8bit(), bnb().create_dynamic_map())


@pytest.mark.parametrize("block_size", [64, 256])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bit_codes_and_values_are_equal_bit_for_bit(kind, block_size):
    name, levels = FOUR_BIT[kind]
    x, coder = inputs(levels, block_size=block_size), codec(name, 4, block_size)
    packed, state = bnb().quantize_4bit(x, blocksize=block_size, quant_type=kind)
    order = torch.argsort(state.code)  # bitsandbytes' own map from rank to code
    nibbles = torch.stack([packed.view(-1) >> 4, packed.view(-1) & 15], dim=1).view(-1)[: len(x)]
    payload = coder.encode([x], rng=rng())
    codes = unpack(payload["codes"], levels=16, count=len(x))
    assert torch.equal(order[codes.long()], nibbles.long())
    theirs = bnb().dequantize_4bit(packed, state).view(-1)
    assert torch.equal(coder.decode(payload, lengths=[len(x)])[0], theirs)


@pytest.mark.parametrize("block_size", [64, 256])
def test_eight_bit_codes_are_those_of_the_portable_kernel(block_size):
    x, coder = inputs(dynamic_8bit(), block_size=block_size), codec("dynamic", 8, block_size)
    codes, absmax = portable_8bit(x, block_size=block_size)
    payload = coder.encode([x], rng=rng())
    assert torch.equal(payload["codes"], codes)
    assert torch.equal(payload["scales"], torch.where(absmax > 0, absmax, 1e-8))


@pytest.mark.parametrize("block_size", [64, 256])
def test_eight_bit_values_are_never_worse_than_those_of_the_native_kernel(block_size):
    x, coder = inputs(dynamic_8bit(), block_size=block_size), codec("dynamic", 8, block_size)
    codes, state = bnb().quantize_blockwise(x, blocksize=block_size)
    theirs = (bnb().dequantize_blockwise(codes, state) - x).abs()
    ours = (coder.decode(coder.encode([x], rng=rng()), lengths=[len(x)])[0] - x).abs()
    scale = state.absmax.repeat_interleave(block_size)[: len(x)]
    assert bool((ours <= theirs + 2**-22 * scale).all())
    # Its thresholds lie on a grid of 2^-15: that, and no more, may it lose to us.
    assert bool((theirs <= ours + 2**-15 * scale).all())


def test_double_quantization_is_that_of_qlora():
    x, coder = normal(64 * 700 + 10), codec(double_quantization=True)
    payload = coder.encode([x], rng=rng())
    packed, state = bnb().quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert payload["scale_mean"].item() == state.offset.item()
    assert torch.equal(payload["scale_scales"], state.state2.absmax)
    plain = codec().encode([x], rng=rng())["scales"]
    codes, _ = portable_8bit(plain - state.offset, block_size=256)
    assert torch.equal(payload["scale_codes"], codes)
    state.absmax = codes
    theirs = bnb().dequantize_4bit(packed, state).view(-1)
    torch.testing.assert_close(coder.decode(payload, lengths=[len(x)])[0], theirs, rtol=1e-6, atol=1e-7)
