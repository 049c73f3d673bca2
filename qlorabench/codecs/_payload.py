"""Checks of what goes into an encoder and what comes out of a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def checked_segments(segments: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` unless every segment is flat float32, not empty and finite."""
    if not segments:
        raise ValueError("there is nothing to encode: no segments")
    for index, segment in enumerate(segments):
        if segment.dtype != torch.float32 or segment.dim() != 1 or not segment.numel():
            found = f"{segment.dtype} of shape {tuple(segment.shape)}"
            raise ValueError(f"segment {index} must be flat, non-empty float32, found {found}")
        if not bool(torch.isfinite(segment).all()):
            raise ValueError(f"segment {index} holds NaN or infinity")


def checked_lengths(lengths: Sequence[int]) -> None:
    """Raise ``ValueError`` unless there are lengths and all are at least 1."""
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths are one or more integers of at least 1, found {list(lengths)}")


def checked_part(payload: Mapping[str, Tensor], name: str, *, size: int, dtype: torch.dtype) -> Tensor:
    """Return ``payload[name]`` if it is of ``dtype`` and shape (size,); ``ValueError`` otherwise."""
    if name not in payload:
        raise ValueError(f"the payload has no '{name}'; it has {', '.join(sorted(payload)) or 'nothing'}")
    part = payload[name]
    if part.dtype != dtype or part.shape != (size,):
        found = f"{part.dtype} of shape {tuple(part.shape)}"
        raise ValueError(f"'{name}' must be {dtype} of shape ({size},), found {found}")
    return part
