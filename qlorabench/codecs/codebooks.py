"""Codebooks: the levels, within [-1, 1], that a coordinate divided by its block's scale is rounded to.

Every table is a float32 tensor of shape (levels,), ascending, and holds 0. A code is an index into it.

- normal-float: FedLPP (arXiv 2406.10976) and QLoRA (arXiv 2305.14314); 4 bits is NF4.
- uniform-int: the symmetric integers of k bits, without the lone most negative one.
- fp4: the 1-2-1 float of bitsandbytes.
- dynamic: the signed dynamic 8-bit map (arXiv 1511.04561) that bitsandbytes uses, QLoRA's second quantizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qlorabench.errors import nearest

_OFFSET = 0.9677083  # outermost quantile of NormalFloat: QLoRA's constant, kept for every k by FedLPP


def normal_float(bits: int) -> Tensor:
    """Return NormalFloat of ``bits`` in 1..8, shape (2^bits,): 2^(bits-1) positive quantiles, 0, the rest.

    One bit is FedLPP's ternary [-1, 0, 1], shape (3,), as in its released code: the rule above would give
    [0, 1], which cannot say a negative number. Three levels cost 1.6 bits a code, not 1 (see ``packing``).
    """
    _check_bits("normal-float", bits)
    if bits == 1:
        return torch.tensor([-1.0, 0.0, 1.0])
    half = 2 ** (bits - 1)
    levels = torch.cat([-_quantiles(half - 1), torch.zeros(1), _quantiles(half).flip(0)])
    return levels / levels.max()


def uniform_int(bits: int) -> Tensor:
    """Return the integers -m..m over m = 2^(bits-1) - 1, for ``bits`` in 2..8; shape (2^bits - 1,).

    Symmetric, so that 0 is a level and both ends of a block are exact; the code -2^(bits-1) stays unused.
    Two bits are therefore ternary, and packed at 1.6 bits a code.
    """
    _check_bits("uniform-int", bits)
    most = 2 ** (bits - 1) - 1
    return torch.div(torch.arange(-most, most + 1, dtype=torch.float32), most)


def fp4() -> Tensor:
    """Return bitsandbytes' FP4 levels, shape (16,): 0, 1/16, 2, 3, 4, 6, 8, 12 and their negatives, over 12.

    Zero stands in it twice (the format's +0 and -0), so that its 16 codes are those of bitsandbytes.
    """
    positive = torch.tensor([0.0, 0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0])
    # Adding zero turns the flipped -0.0 into 0.0: bitsandbytes' table holds no negative zero.
    return torch.cat([-positive.flip(0), positive]) / 12.0 + 0.0


def dynamic_8bit() -> Tensor:
    """Return the signed dynamic 8-bit map, shape (256,): decade e of 7 has 2^e midpoints a sign, then 0, 1.

    It is lopsided: it reaches 1 above but only -0.9929688 below.
    """
    decades = []
    for exponent in range(7):
        edges = torch.linspace(0.1, 1.0, 2**exponent + 1)
        decades.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6))
    positive = torch.cat(decades)
    return torch.cat([-positive, positive, torch.tensor([0.0, 1.0])]).sort().values


def codebook(name: str, bits: int) -> Tensor:
    """Return the levels of codebook ``name`` at ``bits`` bits, shape (levels,), or raise ``ValueError``."""
    _check_bits(name, bits)
    return _FAMILIES[name].build(bits)


def allowed_bits(name: str) -> range:
    """Return the bit widths that codebook ``name`` comes in; ``ValueError`` for an unknown name."""
    if name not in _FAMILIES:
        known = ", ".join(CODEBOOKS)
        raise ValueError(f"unknown codebook '{name}'; it is one of {known}.{nearest(name, CODEBOOKS)}")
    return _FAMILIES[name].bits


def _check_bits(name: str, bits: int) -> None:
    allowed = allowed_bits(name)
    if bits not in allowed:
        span = f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        raise ValueError(f"codebook '{name}' has no {bits}-bit form; allowed bits: {span}")


def _quantiles(count: int) -> Tensor:
    """Return ``count`` standard normal quantiles, from that of 0.9677083 down towards that of 0.5."""
    # Probabilities in float32, quantiles in float64, levels in float32 again: only so is NF4 met bit for bit.
    probabilities = torch.linspace(_OFFSET, 0.5, count + 1)[:-1]
    quantiles: Tensor = torch.special.ndtri(probabilities.double())
    return quantiles.float()


class _Family(NamedTuple):
    bits: range
    build: Callable[[int], Tensor]


_FAMILIES = {
    "normal-float": _Family(range(1, 9), normal_float),
    "uniform-int": _Family(range(2, 9), uniform_int),
    "fp4": _Family(range(4, 5), lambda bits: fp4()),
    "dynamic": _Family(range(8, 9), lambda bits: dynamic_8bit()),
}

CODEBOOKS = tuple(_FAMILIES)
"""The names that ``codebook`` knows."""
