"""The two ways to send a block's scale: as it is, or quantized in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from qlorabench.codecs._blocks import block_count, block_scales, block_sizes, multiplied, spread
from qlorabench.codecs._cells import Cells, coordinate_cells, nearest_edges
from qlorabench.codecs._payload import checked_part
from qlorabench.codecs._rounding import round_nearest
from qlorabench.codecs.codebooks import dynamic_8bit

_BLOCK = 256  # scales that share a scale of their own, as in QLoRA


class ScaleCode(Protocol):
    """How scales, float32 of shape (blocks,), travel."""

    def encode(self, scales: Tensor) -> dict[str, Tensor]:
        """Return the payload tensors of ``scales``."""

    def decode(self, payload: Mapping[str, Tensor], *, blocks: int) -> Tensor:
        """Return the scales a receiver uses, float32 of shape (blocks,)."""

    def cells(self, payload: Mapping[str, Tensor], *, blocks: int) -> Cells:
        """Return the interval each scale of the encoder must have come from, shape (blocks,) each."""

    def encoded_bytes(self, blocks: int) -> int:
        """Return the bytes of the payload tensors."""

    @property
    def bits_per_block(self) -> float:
        """Bits a scale costs where every block of scales is full."""


class PlainScales:
    """Float32 scales under ``scales``."""

    bits_per_block = 32.0

    def encode(self, scales: Tensor) -> dict[str, Tensor]:
        """Return the scales themselves."""
        return {"scales": scales}

    def decode(self, payload: Mapping[str, Tensor], *, blocks: int) -> Tensor:
        """Return the scales themselves."""
        return checked_part(payload, "scales", size=blocks, dtype=torch.float32)

    def cells(self, payload: Mapping[str, Tensor], *, blocks: int) -> Cells:
        """Return points: the scales are known."""
        scales = self.decode(payload, blocks=blocks)
        return Cells(scales, scales)

    def encoded_bytes(self, blocks: int) -> int:
        """Return four bytes a block."""
        return 4 * blocks


class DoubleQuantizedScales:
    """QLoRA's double quantization: scales less their mean, as nearest dynamic 8-bit codes in blocks of 256.

    A scale far below the mean may decode to a small negative number, as in bitsandbytes; we keep that.
    """

    bits_per_block = 8.0 + 32.0 / _BLOCK

    def encode(self, scales: Tensor) -> dict[str, Tensor]:
        """Return ``scale_codes`` (blocks,), ``scale_scales`` (one for 256 blocks), ``scale_mean`` (1,)."""
        mean = scales.mean().reshape(1)
        if not bool(torch.isfinite(mean)):
            raise ValueError("the scales are too large for their float32 mean")
        offsets = scales - mean
        own = block_scales(offsets, block_size=_BLOCK)
        codes = round_nearest(multiplied(offsets, own, block_size=_BLOCK), levels=dynamic_8bit())
        return {"scale_codes": codes, "scale_scales": own, "scale_mean": mean}

    def decode(self, payload: Mapping[str, Tensor], *, blocks: int) -> Tensor:
        """Return mean + level * own scale."""
        parts = _checked(payload, blocks=blocks)
        own = spread(parts.own, block_sizes([blocks], block_size=_BLOCK))
        return dynamic_8bit()[parts.codes.long()] * own + parts.mean

    def cells(self, payload: Mapping[str, Tensor], *, blocks: int) -> Cells:
        """Return the cells of the codes, moved by the mean; no scale is negative."""
        parts = _checked(payload, blocks=blocks)
        sizes = block_sizes([blocks], block_size=_BLOCK)
        own, edges = Cells(parts.own, parts.own), nearest_edges(dynamic_8bit())
        low, high = coordinate_cells(parts.codes, edges=edges, scales=own, sizes=sizes).shifted(parts.mean)
        return Cells(low.clamp(min=0.0), high.clamp(min=0.0))

    def encoded_bytes(self, blocks: int) -> int:
        """Return one byte a block, four for every 256 blocks, and four for the mean."""
        return blocks + 4 * block_count(blocks, block_size=_BLOCK) + 4


class _Parts(NamedTuple):
    codes: Tensor
    own: Tensor
    mean: Tensor


def _checked(payload: Mapping[str, Tensor], *, blocks: int) -> _Parts:
    own = block_count(blocks, block_size=_BLOCK)
    return _Parts(
        codes=checked_part(payload, "scale_codes", size=blocks, dtype=torch.uint8),
        own=checked_part(payload, "scale_scales", size=own, dtype=torch.float32),
        mean=checked_part(payload, "scale_mean", size=1, dtype=torch.float32),
    )
