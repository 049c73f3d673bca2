"""What quantized broadcasts and quantized uploads share: a blockwise codec over the travelling factors."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from qlorabench.codecs import BlockCodec
from qlorabench.federation.defense import DefenseConfig, RoundContext
from qlorabench.federation.wire import ADAPTER, Payload


class CodecConfig(DefenseConfig):
    """A blockwise k-bit codec."""

    bits: int = Field(default=4, ge=1, le=8, description="bits of a code (1 bit is ternary, packed in 1.6 bits)")
    codebook: Literal["normal-float", "uniform-int", "fp4", "dynamic"] = Field(
        default="normal-float",
        description="`normal-float` for 1 to 8 bits, `uniform-int` for 2 to 8, `fp4` for 4, `dynamic` for 8",
    )
    block_size: int = Field(default=64, ge=1, le=65_536, description="values that share one scale")
    rounding: Literal["nearest", "stochastic"] = Field(
        default="nearest", description="to the nearest level, or to a neighbour at random without bias"
    )
    double_quantization: bool = Field(
        default=False, description="quantize the scales to 8 bits as well, in blocks of 256 (QLoRA)"
    )

    def codec(self) -> BlockCodec:
        """Return the codec; raises ValueError where codebook and bits do not go together."""
        return BlockCodec(
            codebook=self.codebook,
            bits=self.bits,
            block_size=self.block_size,
            rounding=self.rounding,
            double_quantization=self.double_quantization,
        )


def encode(codec: BlockCodec, payload: Payload, context: RoundContext) -> Payload:
    """Replace the plain factors of ``payload`` by codes and scales; a shared head is left alone."""
    lengths = context.layout.only("A", "B").lengths
    segments = list(torch.split(payload[ADAPTER], lengths))
    rest = {name: value for name, value in payload.items() if name != ADAPTER}
    return rest | codec.encode(segments, rng=context.rng)


def decode(codec: BlockCodec, payload: Payload, context: RoundContext) -> Payload:
    """Invert `encode` from the received tensors; raises ValueError where their sizes do not fit."""
    segments = codec.decode(payload, lengths=context.layout.only("A", "B").lengths)
    return {**{k: v for k, v in payload.items() if k == "head"}, ADAPTER: torch.cat(segments)}
