"""Inputs of a layer for candidate texts, from a forward pass that ends where they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qlorabench.federation.model import AdapterModel

Sentence: TypeAlias = tuple[int, ...]
"""Token ids in order, special ones included."""
Singles: TypeAlias = npt.NDArray[np.float32]
_BATCH = 128


class _ReadError(Exception):
    """Ends a forward pass: what comes later is not needed."""


def layer_inputs(model: AdapterModel, module: str, sentences: Sequence[Sentence]) -> list[Singles]:
    """Return the inputs of ``module`` for every sentence, (tokens, d) each, under the adapter that is mounted."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    inputs: dict[int, Singles] = {}
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        longest = len(sentences[part[-1]])
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        for row, i in enumerate(part):
            ids[row, : len(sentences[i])] = torch.tensor(sentences[i])
        mask = torch.arange(longest) < torch.tensor([[len(sentences[i])] for i in part])
        seen = _read(model, module, input_ids=ids, attention_mask=mask.long())
        for row, i in enumerate(part):
            inputs[i] = _array(seen[row, : len(sentences[i])])
    return [inputs[i] for i in range(len(sentences))]


def branch_inputs(model: AdapterModel, module: str, prefix: Sentence, tokens: Sequence[int]) -> Singles:
    """Return the input of ``module`` at the token behind ``prefix`` of a causal model, for each of ``tokens``, (n, d).

    All of them stand in one row behind the same prefix, at the same position, and see the prefix and themselves.
    """
    length, count = len(prefix), len(tokens)
    ids = torch.tensor([[*prefix, *tokens]])
    places = torch.cat([torch.arange(length), torch.full((count,), length)])[None]
    seen = torch.ones(length + count, length + count, dtype=torch.bool).tril()
    seen[length:, length:] = torch.eye(count, dtype=torch.bool)
    found = _read(model, module, input_ids=ids, attention_mask=seen[None, None], position_ids=places)
    return _array(found[0, length:])


def _read(model: AdapterModel, module: str, **inputs: Tensor) -> Tensor:
    layer = dict(model.encoder.get_base_model().named_modules())[module]
    with torch.inference_mode(), _caught(layer) as seen, suppress(_ReadError):
        model.encoder(**inputs)
    return seen[0]


@contextmanager
def _caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])
        raise _ReadError

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _array(tensor: Tensor) -> Singles:
    values: Singles = tensor.float().numpy()
    return values
