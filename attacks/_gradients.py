"""Gradients of single examples, from one backward pass over many."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from qlorabench.federation.losses import example_losses
from qlorabench.federation.model import AdapterModel
from qlorabench.federation.state import Layout
from qlorabench.tasks.encoding import Encoded, collate


def example_gradients(
    model: AdapterModel, data: Encoded, rows: np.ndarray, names: Collection[str]
) -> dict[str, Tensor]:
    """Return the gradient of the loss of each of ``rows`` by each tensor in ``names``, as (rows, *shape).

    All of these tensors are weights and biases of linear layers y = W x + b, of the factors A and B as of the head.
    There the gradient of one example is the sum over its tokens of dL/dy x', so that the inputs and dL/dy of a single
    pass over the summed losses hold the gradients of all of its examples. ``model`` holds the state to look at.
    """
    wanted = model.train_only(Layout(tuple(spec for spec in model.layout if spec.name in names)))
    owners = _owners(model, {id(parameter): spec.name for spec, parameter in wanted})
    ids, mask = collate(data, rows)
    with watched(list(owners)) as seen:
        loss = example_losses(model.objective, model(ids, mask), ids, mask, data.labels[rows]).sum()
    slopes = torch.autograd.grad(loss, [y for _, _, y in seen])
    gradients: dict[str, Tensor] = {}
    for (layer, x, _), slope in zip(seen, slopes, strict=True):
        for name, part in _parts(owners[layer], x.detach(), slope):
            gradients[name] = gradients[name] + part if name in gradients else part
    return gradients


def _owners(model: nn.Module, names: Mapping[int, str]) -> dict[nn.Linear, dict[str, str]]:
    """Return for every linear layer with a tensor in ``names`` (by its id) what its weight and bias are called."""
    owners = {}
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            own = {kind: names[id(p)] for kind, p in layer.named_parameters(recurse=False) if id(p) in names}
            if own:
                owners[layer] = own
    return owners


def _parts(own: Mapping[str, str], x: Tensor, slope: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradients of a layer's own tensors from inputs (rows, ..., d_in) and slopes (rows, ..., d_out)."""
    x, slope = x.reshape(len(x), -1, x.shape[-1]), slope.reshape(len(slope), -1, slope.shape[-1])
    if "weight" in own:
        yield own["weight"], slope.transpose(1, 2) @ x
    if "bias" in own:
        yield own["bias"], slope.sum(1)


def linear_owners(model: AdapterModel, names: Sequence[str]) -> dict[nn.Linear, dict[str, str]]:
    """Return the linear layers that hold the tensors ``names``, each with what its weight and bias are called."""
    layout = Layout(tuple(spec for spec in model.layout if spec.name in set(names)))
    owners = _owners(model, {id(parameter): spec.name for spec, parameter in model.train_only(layout)})
    model.train_only(Layout(()))
    return owners


@contextmanager
def watched(layers: Sequence[nn.Linear]) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
    """Record layer, input and output of every call while the block runs, without cutting the graph."""
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        seen.append((layer, inputs[0], output))

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
