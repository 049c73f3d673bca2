"""What the output of a model depends on, read off the graph of one short text; no gradient is computed for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qlorabench.suite.schema import Objective

_PROBE = 16
"""Most tokens of the text that is read."""


def output_of(model: Any, objective: Objective, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Return what the loss is computed from: (batch, tokens, width), or (batch, tokens, vocabulary) of logits."""
    settings: dict[str, Tensor] = {} if mask is None else {"attention_mask": mask}
    output = model(input_ids=ids, **settings)
    read: Tensor = output.last_hidden_state if objective == "classification" else output.logits
    return read


def probe_of(model: Any, positions: int | None) -> Tensor:
    """Return the ids of a short text that ``model`` can read, (1, tokens), every one another where there are enough."""
    length = min(_PROBE, positions or _PROBE)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    return torch.arange(length, device=model.device)[None] % vocabulary


def reached_by(output: Tensor) -> set[int]:
    """Return the ``id`` of every tensor with gradient that ``output`` was computed from."""
    seen: set[Any] = set()
    leaves: set[int] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        waiting.extend(before for before, _ in node.next_functions)
    return leaves


def idle_parameters(model: nn.Module, objective: Objective, ids: Tensor, mask: Tensor | None) -> frozenset[str]:
    """Return the names of the parameters of modules that run on a text although the output does not depend on them.

    A pooler has such, where the loss looks at the tokens. Modules that this text does not run may run on another (one
    expert of a mixture), and integers of quantized weights are in no graph: neither is among the names.
    """
    ran: set[int] = set()
    hooks = [
        module.register_forward_hook(lambda module, *_: ran.add(id(module)))
        for module in model.modules()
        if module._parameters
    ]
    try:
        with _all_requiring_gradients(model):
            reached = reached_by(output_of(model, objective, ids, mask))
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if id(module) in ran
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.is_floating_point() and id(parameter) not in reached
    )


@contextmanager
def _all_requiring_gradients(model: nn.Module) -> Iterator[None]:
    """Let every floating-point parameter require a gradient inside the block, and put things back behind it."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters() if parameter.is_floating_point()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
