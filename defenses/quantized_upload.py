"""Quantized upload: clients send low-precision updates."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from qlorabench.federation.defense import Defense, DefenseConfig, RoundContext
from qlorabench.federation.wire import Payload

from ._codec import CodecConfig, decode, encode


class QuantizedUploadConfig(CodecConfig):
    """The codec of the uplink; unbiased by default, as FedPAQ's analysis needs it."""

    bits: int = Field(default=8, ge=1, le=8, description="bits of a code (1 bit is ternary, packed in 1.6 bits)")
    codebook: Literal["normal-float", "uniform-int", "fp4", "dynamic"] = Field(
        default="uniform-int",
        description="`uniform-int` for 2 to 8 bits, `normal-float` for 1 to 8, `fp4` for 4, `dynamic` for 8",
    )
    rounding: Literal["nearest", "stochastic"] = Field(
        default="stochastic", description="to the nearest level, or to a neighbour at random without bias"
    )

    @model_validator(mode="after")
    def _codec_exists(self) -> QuantizedUploadConfig:
        self.codec()
        return self


class QuantizedUpload(Defense[QuantizedUploadConfig]):
    """FedPAQ: the client quantizes the difference between its adapter and the one it started from.

    FedPAQ asks for an unbiased quantizer (Assumption 1) and takes QSGD's, one L2 norm a vector, as an example;
    here every block has its own absmax scale, which has less variance at the same number of bits.
    """

    name: ClassVar[str] = "quantized-upload"
    Config: ClassVar[type[DefenseConfig]] = QuantizedUploadConfig
    paper: ClassVar[str] = "Reisizadeh et al., FedPAQ, AISTATS 2020"
    exclusive: ClassVar[frozenset[str]] = frozenset({"upload codec"})

    def encode_update(self, payload: Payload, context: RoundContext) -> Payload:
        """Return codes and scales in place of the update of the factors."""
        return encode(self.config.codec(), payload, context)

    def decode_update(self, payload: Payload, context: RoundContext) -> Payload:
        """Return the dequantized update."""
        return decode(self.config.codec(), payload, context)
