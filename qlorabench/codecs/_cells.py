"""What a code gives away: the interval a coordinate must have come from.

In units of the scale, a code under nearest rounding spans the midpoints around its level, under stochastic
rounding the two neighbouring levels; both end at -1 and 1, for no coordinate exceeds its block's absmax.
Where one coordinate alone of its block carries an outermost code, it is the absmax and its cell is a point.

Cells are widened by a few float32 roundings, so that they hold what the encoder saw, not what exact
arithmetic would have.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qlorabench.codecs._blocks import spread
from qlorabench.codecs._rounding import midpoints

_SLACK = 2.0**-20  # relative; sixteen times the rounding of one float32 operation
_TINY = 1e-37  # absolute; where float32 loses digits, and blocks count as zero


class Cells(NamedTuple):
    """The interval, per coordinate, of the values that could have produced its code."""

    low: Tensor
    """Lower ends, inclusive; float32 of shape (length,)."""
    high: Tensor
    """Upper ends, inclusive; float32 of shape (length,)."""

    def shifted(self, offset: Tensor) -> Cells:
        """Return the cells of ``value + offset``, widened by the rounding of the sum."""
        low, high = self.low.double() + offset, self.high.double() + offset
        slack = offset.abs() + torch.maximum(low.abs(), high.abs())
        return _widened(low, high, slack=slack)


def nearest_edges(levels: Tensor) -> Cells:
    """Return the cell of every code under nearest rounding, in units of the scale; shape (levels,) each."""
    inner = midpoints(levels)
    return Cells(torch.cat([-torch.ones(1), inner]), torch.cat([inner, torch.ones(1)]))


def stochastic_edges(levels: Tensor) -> Cells:
    """Return the cell of every code under stochastic rounding, in units of the scale."""
    return Cells(torch.cat([-torch.ones(1), levels[:-1]]), torch.cat([levels[1:], torch.ones(1)]))


def coordinate_cells(codes: Tensor, *, edges: Cells, scales: Cells, sizes: Tensor) -> Cells:
    """Return the cells of ``codes``, shape (n,), given those of their blocks' scales, shape (blocks,).

    An end that is negative in units of the scale lies lowest at the largest scale, and so on.
    """
    smallest, largest = spread(scales.low.double(), sizes), spread(scales.high.double(), sizes)
    low, high = edges.low.double()[codes.long()], edges.high.double()[codes.long()]
    top = edges.low.numel() - 1
    alone = _alone((codes == 0) | (codes == top), sizes=sizes)
    low = torch.where(alone & (codes == top), 1.0, low)
    high = torch.where(alone & (codes == 0), -1.0, high)
    low = low * torch.where(low < 0, largest, smallest)
    high = high * torch.where(high > 0, largest, smallest)
    return _widened(low, high, slack=largest)


def _alone(marked: Tensor, *, sizes: Tensor) -> Tensor:
    """Return which coordinates are ``marked``, bool of shape (n,), with no other of their block."""
    blocks = spread(torch.arange(sizes.numel()), sizes)
    counts = torch.bincount(blocks[marked], minlength=sizes.numel())
    return marked & (counts[blocks] == 1)


def _widened(low: Tensor, high: Tensor, *, slack: Tensor) -> Cells:
    margin = slack * _SLACK + _TINY
    return Cells((low - margin).float(), (high + margin).float())
