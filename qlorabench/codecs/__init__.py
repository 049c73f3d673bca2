"""Blockwise k-bit codecs of broadcasts and uploads: codebooks, dense packing, and what a code gives away."""

from qlorabench.codecs._cells import Cells
from qlorabench.codecs.blockwise import BlockCodec, Rounding
from qlorabench.codecs.codebooks import (
    CODEBOOKS,
    allowed_bits,
    codebook,
    dynamic_8bit,
    fp4,
    normal_float,
    uniform_int,
)
from qlorabench.codecs.packing import bits_per_code, pack, packed_bytes, unpack

__all__ = [
    "CODEBOOKS",
    "BlockCodec",
    "Cells",
    "Rounding",
    "allowed_bits",
    "bits_per_code",
    "codebook",
    "dynamic_8bit",
    "fp4",
    "normal_float",
    "pack",
    "packed_bytes",
    "uniform_int",
    "unpack",
]
