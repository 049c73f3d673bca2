"""How far the gradients of candidate texts are from one update, in directions that the update tells apart.

Shapes: C candidates, N texts of an update, S slots of a text, d width, r rank; k a tensor's number of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qlorabench.federation.model import AdapterModel
from qlorabench.federation.state import Layout

from ._gradients import _owners, _parts
from ._relaxed import Body

_COARSE, _FINE = 0.1, 1e-3
"""Share of the strongest direction below which directions are held equal, at the start and at the end."""
_SETTLED = 0.75
"""Share of the steps after which it has come down."""
_LINEAR = 0.1
"""Gradients below this share of their root mean square count by size, larger ones by sign, where Adam steps."""


@dataclass(frozen=True)
class Target:
    """One tensor of the update, turned so that its short side is its columns, and the strengths of these."""

    value: Tensor
    """(n, k)"""
    strengths: Tensor
    """Eigenvalues of value' value, ascending, (k,)."""
    directions: Tensor
    """(k, k)"""
    floor: float
    """What the known noise adds to each eigenvalue."""

    def whitener(self, progress: float) -> Tensor:
        """Return (k, k): divides directions by their strength, so that weak ones count, but not below the noise."""
        sharpness: float = _COARSE * (_FINE / _COARSE) ** min(1.0, progress / _SETTLED)
        damping = sharpness**2 * self.strengths[-1] + self.floor
        return (self.directions * (self.strengths.clamp(min=0) + damping).rsqrt()) @ self.directions.T


def make_target(value: Tensor, *, variance: float = 0.0) -> Target:
    """Return the target of a change ``value`` (n, m) whose elements carry noise of ``variance``."""
    tall = value if value.shape[0] >= value.shape[1] else value.T
    strengths, directions = torch.linalg.eigh(tall.double().T @ tall.double())
    return Target(tall, strengths.float(), directions.float(), len(tall) * variance)


@dataclass(frozen=True)
class Matching:
    """The objective of gradient matching: one minus the cosine of whitened gradients, mean over tensors."""

    body: Body
    targets: Mapping[str, Target]
    """By tensor name: minus the update, which is what gradients add up to."""
    labels: Tensor
    """(C, N)"""
    signs: bool = False
    """Whether the clients' optimizer stepped by the gradients' signs rather than by the gradients."""
    _layers: Mapping[nn.Linear, Mapping[str, str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_layers", linear_owners(self.body.model, list(self.targets)))

    def labelled(self, labels: Tensor) -> Matching:
        """Return the same objective under other ``labels`` (C, N)."""
        return Matching(self.body, self.targets, labels, self.signs)

    def distance(self, slots: Tensor, *, progress: float) -> Tensor:
        """Return (C,) for word embeddings ``slots`` (C, N, S, d)."""
        found = self._gradients(slots)
        parts = [self._apart(found[name], target, progress) for name, target in self.targets.items()]
        return torch.stack(parts).mean(0)

    def _apart(self, gradient: Tensor, target: Target, progress: float) -> Tensor:
        tall = gradient if gradient.shape[1:] == target.value.shape else gradient.transpose(1, 2)
        if self.signs:
            ours = tall / (tall.abs() + _LINEAR * tall.square().mean((1, 2), keepdim=True).sqrt() + 1e-30)
            return 1 - nn.functional.cosine_similarity(ours.flatten(1), target.value.flatten()[None])
        whitener = target.whitener(progress)
        ours, theirs = tall @ whitener, target.value @ whitener
        return 1 - nn.functional.cosine_similarity(ours.flatten(1), theirs.flatten()[None], eps=1e-20)

    def _gradients(self, slots: Tensor) -> dict[str, Tensor]:
        """Return the gradients of every candidate, summed over its texts, (C, *shape)."""
        labels = self.labels.expand(slots.shape[:2]).flatten()
        wants = torch.is_grad_enabled() and slots.requires_grad
        with torch.enable_grad(), watched(list(self._layers)) as seen:
            given = slots if slots.requires_grad else slots.detach().requires_grad_()
            hidden = self.body.encode(given)
            assert self.body.model.head is not None
            loss = nn.functional.cross_entropy(self.body.model.head(hidden.mean(1)), labels, reduction="sum")
            slopes = torch.autograd.grad(loss, [y for _, _, y in seen], create_graph=wants)
        found = {}
        for (layer, x, _), slope in zip(seen, slopes, strict=True):
            for name, part in _parts(self._layers[layer], x if wants else x.detach(), slope):
                found[name] = part.reshape(*slots.shape[:2], *part.shape[1:]).sum(1)
        return found


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
