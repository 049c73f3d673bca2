"""What crosses the wire: a safetensors container of named tensors, written and read as exact bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from qlorabench.errors import UserError
from qlorabench.federation.state import Layout, State

Payload: TypeAlias = dict[str, Tensor]
"""Named tensors of one message, before or after the container."""

ADAPTER = "adapter"
"""Payload entry with the flat float32 values of the travelling factors; codecs replace it by their own entries."""
HEAD = "head"
"""Payload entry with the flat float32 values of a shared classification head; codecs leave it alone."""


def pack(state: Mapping[str, Tensor], layout: Layout) -> Payload:
    """Return the plain payload of ``state``: flat vectors in the order of ``layout``."""
    payload = {ADAPTER: layout.only("A", "B").flatten(state), HEAD: layout.only("head").flatten(state)}
    return {name: values for name, values in payload.items() if values.numel()}


def unpack(payload: Mapping[str, Tensor], layout: Layout) -> State:
    """Invert `pack`; raises ValueError where the payload does not fit the layout."""
    state: State = {}
    for name, part in ((ADAPTER, layout.only("A", "B")), (HEAD, layout.only("head"))):
        if part.count:
            if name not in payload:
                raise ValueError(f"the payload has no entry '{name}' (it has {sorted(payload)})")
            state |= part.unflatten(payload[name])
    return state


def to_bytes(payload: Mapping[str, Tensor]) -> bytes:
    """Return the safetensors container of ``payload``."""
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in payload.items()})


def from_bytes(data: bytes) -> Payload:
    """Read a container; raises UserError where it is cut short or not a container."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(sorted(load(data).items()))  # the reader gives them in no fixed order
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"a message of {len(data)} bytes is damaged: {error}") from error
