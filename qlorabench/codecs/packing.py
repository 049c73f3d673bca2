"""Dense packing of codes into bytes, without a header: as many bits as the levels need, and no more.

- Three levels: base 3, five codes a byte (3^5 = 243 <= 256), so 1.6 bits a code against the ideal 1.585.
- Any other number of levels: k = ceil(log2(levels)) bits a code; code i occupies bits i*k .. i*k + k - 1 of
  the stream, least significant bit of each byte first, so codes straddle bytes where k does not divide 8.

Only the last byte is padded, with zero bits or zero trits.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TRITS = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8)


def bits_per_code(levels: int) -> float:
    """Return the bits one code takes on the wire, before the last byte is filled up."""
    return 1.6 if levels == 3 else float(_width(levels))


def packed_bytes(count: int, *, levels: int) -> int:
    """Return how many bytes ``pack`` makes of ``count`` codes."""
    return -(-count // 5) if levels == 3 else -(-count * _width(levels) // 8)


def pack(codes: Tensor, *, levels: int) -> Tensor:
    """Pack uint8 ``codes`` of shape (count,), each below ``levels``, into uint8 of shape (packed_bytes,)."""
    if codes.dtype != torch.uint8 or codes.dim() != 1:
        raise ValueError(f"codes must be flat uint8, found {codes.dtype} of shape {tuple(codes.shape)}")
    _check_codes(codes, levels=levels)
    size = packed_bytes(codes.numel(), levels=levels)
    return (_pack_trits(codes) if levels == 3 else _pack_bits(codes, width=_width(levels)))[:size]


def unpack(packed: Tensor, *, levels: int, count: int) -> Tensor:
    """Return the ``count`` codes of ``packed`` as uint8 of shape (count,): the exact inverse of ``pack``.

    ``ValueError`` where the bytes are not as many as ``count`` codes take, or hold a code without a level.
    """
    size = packed_bytes(count, levels=levels)
    if packed.dtype != torch.uint8 or packed.shape != (size,):
        found = f"{packed.dtype} of shape {tuple(packed.shape)}"
        raise ValueError(f"{count} codes of {levels} levels take uint8 of shape ({size},), found {found}")
    codes = _unpack_trits(packed) if levels == 3 else _unpack_bits(packed, width=_width(levels))
    _check_codes(codes[:count], levels=levels)
    return codes[:count]


def _pack_trits(codes: Tensor) -> Tensor:
    return (_grouped(codes, 5) * _TRITS).sum(dim=1, dtype=torch.uint8)


def _unpack_trits(packed: Tensor) -> Tensor:
    if packed.numel() and int(packed.max()) >= 3**5:
        raise ValueError(f"a byte of five base-3 codes is at most 242, found {int(packed.max())}")
    trits: Tensor = packed[:, None] // _TRITS % 3
    return trits.reshape(-1)


def _pack_bits(codes: Tensor, *, width: int) -> Tensor:
    """Return whole groups: eight codes of ``width`` bits fill ``width`` bytes, by way of one 64-bit word."""
    if width == 8:
        return codes
    words = (_grouped(codes, 8).long() << (torch.arange(8) * width)).sum(dim=1)
    return _fields(words, count=width, width=8)


def _unpack_bits(packed: Tensor, *, width: int) -> Tensor:
    if width == 8:
        return packed
    words = (_grouped(packed, width).long() << (torch.arange(width) * 8)).sum(dim=1)
    return _fields(words, count=8, width=width)


def _fields(words: Tensor, *, count: int, width: int) -> Tensor:
    """Return the ``count`` lowest fields of ``width`` bits of each word, as flat uint8."""
    fields: Tensor = (words[:, None] >> (torch.arange(count) * width)) & (2**width - 1)
    return fields.to(torch.uint8).reshape(-1)


def _grouped(flat: Tensor, size: int) -> Tensor:
    """Return ``flat`` as rows of ``size``, the last one filled up with zeros; shape (rows, size)."""
    return torch.cat([flat, flat.new_zeros(-flat.numel() % size)]).view(-1, size)


def _check_codes(codes: Tensor, *, levels: int) -> None:
    if codes.numel() and int(codes.max()) >= levels:
        raise ValueError(f"codes run from 0 to {levels - 1}, found {int(codes.max())}")


def _width(levels: int) -> int:
    if not 2 <= levels <= 256:
        raise ValueError(f"a code has 2 to 256 levels, found {levels}")
    return (levels - 1).bit_length()
