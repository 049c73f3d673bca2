"""From a coordinate within [-1, 1] to the code of a level."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def midpoints(levels: Tensor) -> Tensor:
    """Return the thresholds between neighbouring ``levels``, float32 of shape (levels - 1,)."""
    return (levels[:-1] + levels[1:]) / 2


def round_nearest(values: Tensor, *, levels: Tensor) -> Tensor:
    """Return the nearest level's code, uint8 of shape (n,); a value on a midpoint goes to the lower level.

    That is also how bitsandbytes breaks ties.
    """
    return torch.bucketize(values, midpoints(levels), out_int32=True).to(torch.uint8)


def round_stochastic(values: Tensor, *, levels: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the level below or above, at odds that make the mean exact; uint8 codes of shape (n,).

    P(above) = (value - below) / (above - below), with one float32 uniform a coordinate (a multiple of
    2^-24). Values outside the levels go to the nearest end; of our codebooks only ``dynamic`` has those.
    """
    below = torch.bucketize(values, levels, right=True) - 1
    below = below.clamp(0, levels.numel() - 2)  # the top level is reached from the one beneath, with odds 1
    gaps = levels[1:] - levels[:-1]
    odds = (values - levels[below]) / gaps[below]
    draws = torch.from_numpy(rng.random(values.numel(), dtype=np.float32))
    return (below + (draws < odds)).to(torch.uint8)
