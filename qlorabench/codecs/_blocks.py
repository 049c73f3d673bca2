"""Blocks of a flat tensor: their sizes, their scales, and the tensor divided by them.

A segment of length n is cut into ceil(n / block_size) blocks, of which the last may be short. Segments do
not share blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ZERO_SCALE = 1e-8  # the scale of a zero block, as in FedLPP; bitsandbytes stores 0 there
_ZERO_BELOW = 1e-38  # below it a float32 has no reciprocal; bitsandbytes clamps here


def block_count(length: int, *, block_size: int) -> int:
    """Return how many blocks a segment of ``length`` coordinates has."""
    return -(-length // block_size)


def block_sizes(lengths: Sequence[int], *, block_size: int) -> Tensor:
    """Return the coordinates in every block of every segment, int64 of shape (blocks,)."""
    sizes = []
    for length in lengths:
        full, rest = divmod(length, block_size)
        sizes += [block_size] * full + [rest] * (rest > 0)
    return torch.tensor(sizes, dtype=torch.int64)


def block_scales(segment: Tensor, *, block_size: int) -> Tensor:
    """Return the largest magnitude of each block, float32 of shape (blocks,); 1e-8 where a block is zero.

    A block whose magnitudes all stay below 1e-38 counts as zero.
    """
    full = segment.numel() // block_size * block_size
    absmax = segment[:full].view(-1, block_size).abs().amax(dim=1)
    if full < segment.numel():
        absmax = torch.cat([absmax, segment[full:].abs().amax(dim=0, keepdim=True)])
    return torch.where(absmax < _ZERO_BELOW, torch.full_like(absmax, ZERO_SCALE), absmax)


def multiplied(segment: Tensor, scales: Tensor, *, block_size: int) -> Tensor:
    """Return ``segment`` over its ``scales`` as bitsandbytes computes it, float32 of shape (length,).

    Full blocks are multiplied by the reciprocal of the scale and a short block is divided by it, which
    differs in the last bit, and so in the code of a coordinate that lies on a midpoint.
    """
    full = segment.numel() // block_size * block_size
    count = full // block_size
    head = segment[:full].view(-1, block_size) * (1.0 / scales[:count])[:, None]
    return torch.cat([head.view(-1), segment[full:] / scales[count:]]).clamp(-1.0, 1.0)


def divided(segment: Tensor, scales: Tensor, *, block_size: int) -> Tensor:
    """Return ``segment`` divided by its ``scales``, float32 of shape (length,): an absmax gives exactly 1."""
    return segment / spread(scales, block_sizes([segment.numel()], block_size=block_size))


def spread(per_block: Tensor, sizes: Tensor) -> Tensor:
    """Return the value of each coordinate's block, shape (coordinates,)."""
    return torch.repeat_interleave(per_block, sizes)
