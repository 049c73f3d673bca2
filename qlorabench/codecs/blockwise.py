"""Blockwise quantization of adapter tensors, as FedLPP and QLoRA do it: absmax scale, codebook, dense codes.

Sources: FedLPP (arXiv 2406.10976) and its released code for the blocks, the zero block and NormalFloat;
QLoRA (arXiv 2305.14314) and bitsandbytes for double quantization, where the paper says FP8 and the code
uses the dynamic 8-bit map. Stochastic rounding is ours, after QSGD (arXiv 1610.02132).

Where we differ from bitsandbytes 0.50: its 8-bit quantizer on the CPU places its thresholds on a grid of
about 2^-15 and so misses the nearest level near one, and for small values even where they are levels
themselves; we round to the nearest, as its portable kernel does. A zero block has scale 1e-8 here and 0
there, and both decode to 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from qlorabench.codecs import _blocks, _cells
from qlorabench.codecs._cells import Cells
from qlorabench.codecs._payload import checked_lengths, checked_part, checked_segments
from qlorabench.codecs._rounding import round_nearest, round_stochastic
from qlorabench.codecs._scales import DoubleQuantizedScales, PlainScales, ScaleCode
from qlorabench.codecs.codebooks import codebook
from qlorabench.codecs.packing import bits_per_code, pack, packed_bytes, unpack

Rounding = Literal["nearest", "stochastic"]


@dataclass(frozen=True)
class BlockCodec:
    """A blockwise k-bit code of flat float32 tensors ("segments"; an adapter tensor each).

    The payload is ``codes`` (uint8, all segments packed once) and either ``scales`` (float32, one a block)
    or, with double quantization, ``scale_codes`` (uint8, one a block), ``scale_scales`` (float32, one for
    every 256 blocks) and ``scale_mean`` (float32, one). Lengths travel outside it.
    """

    codebook: str
    """Name of the codebook, as ``qlorabench.codecs.codebook`` knows it."""
    bits: int
    """Bits of the codebook; what a code takes on the wire is ``bits_per_code`` of its levels."""
    block_size: int
    """Coordinates that share a scale; the last block of a segment may be short."""
    rounding: Rounding
    """``nearest``, ties to the lower level; or ``stochastic``, unbiased between neighbouring levels."""
    double_quantization: bool
    """Whether the scales are sent quantized in turn, as nearest dynamic 8-bit codes in blocks of 256."""

    def __post_init__(self) -> None:
        codebook(self.codebook, self.bits)
        if self.block_size < 1:
            raise ValueError(f"block_size is at least 1, found {self.block_size}")
        if self.rounding not in get_args(Rounding):
            raise ValueError(f"rounding is one of {', '.join(get_args(Rounding))}, found '{self.rounding}'")

    def encode(self, segments: Sequence[Tensor], *, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the payload of ``segments``, float32 of shape (length,) each.

        Only stochastic rounding draws from ``rng``: one uniform a coordinate, in order. ``ValueError`` for
        an empty, not flat, not float32 or not finite segment.
        """
        checked_segments(segments)
        scales = [_blocks.block_scales(s, block_size=self.block_size) for s in segments]
        codes = pack(self._round(segments, scales, rng=rng), levels=self._levels().numel())
        return {"codes": codes, **self._scale_code.encode(torch.cat(scales))}

    def decode(self, payload: Mapping[str, Tensor], *, lengths: Sequence[int]) -> list[Tensor]:
        """Return the segments that ``payload`` says, float32 of shape (length,) each.

        ``ValueError`` where the tensors of the payload do not fit ``lengths``.
        """
        codes, sizes = self._codes(payload, lengths=lengths), self._sizes(lengths)
        scales = self._scale_code.decode(payload, blocks=sizes.numel())
        values = self._levels()[codes.long()]
        return list(torch.split(values * _blocks.spread(scales, sizes), list(lengths)))

    def cells(self, payload: Mapping[str, Tensor], *, lengths: Sequence[int]) -> list[Cells]:
        """Return, per segment, the interval of values that could have produced each coordinate's code.

        With double quantization the encoder's scale is not sent, so a cell spans every scale that could
        have produced the scale's own code, and is wider for it.
        """
        codes, sizes = self._codes(payload, lengths=lengths), self._sizes(lengths)
        edges_of = _cells.nearest_edges if self.rounding == "nearest" else _cells.stochastic_edges
        scales = self._scale_code.cells(payload, blocks=sizes.numel())
        cells = _cells.coordinate_cells(codes, edges=edges_of(self._levels()), scales=scales, sizes=sizes)
        low, high = (torch.split(ends, list(lengths)) for ends in cells)
        return [Cells(*ends) for ends in zip(low, high, strict=True)]

    def expected_bytes(self, lengths: Sequence[int]) -> int:
        """Return the bytes of the payload's tensors for segments of these ``lengths``, without any header."""
        blocks = self._sizes(lengths).numel()
        codes = packed_bytes(sum(lengths), levels=self._levels().numel())
        return codes + self._scale_code.encoded_bytes(blocks)

    @property
    def bits_per_parameter(self) -> float:
        """Bits a coordinate costs where every block is full: its code and its share of the scales."""
        return bits_per_code(self._levels().numel()) + self._scale_code.bits_per_block / self.block_size

    @property
    def _scale_code(self) -> ScaleCode:
        return DoubleQuantizedScales() if self.double_quantization else PlainScales()

    def _levels(self) -> Tensor:
        return codebook(self.codebook, self.bits)

    def _sizes(self, lengths: Sequence[int]) -> Tensor:
        checked_lengths(lengths)
        return _blocks.block_sizes(lengths, block_size=self.block_size)

    def _round(self, segments: Sequence[Tensor], scales: Sequence[Tensor], *, rng: np.random.Generator) -> Tensor:
        pairs = list(zip(segments, scales, strict=True))
        if self.rounding == "nearest":
            values = torch.cat([_blocks.multiplied(x, s, block_size=self.block_size) for x, s in pairs])
            return round_nearest(values, levels=self._levels())
        values = torch.cat([_blocks.divided(x, s, block_size=self.block_size) for x, s in pairs])
        return round_stochastic(values, levels=self._levels(), rng=rng)

    def _codes(self, payload: Mapping[str, Tensor], *, lengths: Sequence[int]) -> Tensor:
        checked_lengths(lengths)
        count, levels = sum(lengths), self._levels().numel()
        size = packed_bytes(count, levels=levels)
        packed = checked_part(payload, "codes", size=size, dtype=torch.uint8)
        return unpack(packed, levels=levels, count=count)
