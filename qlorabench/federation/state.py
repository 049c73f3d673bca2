"""The adapter as named tensors, and the public layout by which both ends of the wire read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = dict[str, Tensor]
"""Tensor name -> float32 tensor. Names are ``<module>.A``, ``<module>.B``, ``head.weight`` and ``head.bias``."""

Role: TypeAlias = Literal["A", "B", "head"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the adapter: A of shape (rank, d_in), B of shape (d_out, rank), or a part of the head."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def module(self) -> str:
        """The adapted module, as in ``encoder.layer.0.attention.self.query``."""
        return self.name.rpartition(".")[0]

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True)
class Layout:
    """The tensors of an adapter in their fixed order; public, so that no message has to repeat names."""

    specs: tuple[TensorSpec, ...]

    def __iter__(self) -> Any:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def names(self) -> list[str]:
        """Tensor names in order."""
        return [spec.name for spec in self.specs]

    @property
    def lengths(self) -> list[int]:
        """Number of elements of each tensor, in order."""
        return [spec.count for spec in self.specs]

    @property
    def count(self) -> int:
        """Number of elements of all tensors together."""
        return sum(self.lengths)

    def only(self, *roles: Role) -> Layout:
        """Return the layout of the tensors with one of ``roles``."""
        return Layout(tuple(spec for spec in self.specs if spec.role in roles))

    def modules(self) -> list[str]:
        """Return the adapted modules, in order, each once."""
        return list(dict.fromkeys(spec.module for spec in self.specs if spec.role != "head"))

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return all elements as one float32 vector of shape (count,); raises KeyError on a missing tensor."""
        if not self.specs:
            return torch.zeros(0)
        return torch.cat([state[spec.name].detach().reshape(-1).to(torch.float32) for spec in self.specs])

    def segments(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        """Return every tensor as a flat float32 vector, in order."""
        return [state[spec.name].detach().reshape(-1).to(torch.float32) for spec in self.specs]

    def unflatten(self, flat: Tensor | Sequence[Tensor]) -> State:
        """Invert `flatten` or `segments`; raises ValueError where the number of elements does not fit."""
        vector = flat if isinstance(flat, Tensor) else torch.cat([*flat, torch.zeros(0)])
        if vector.numel() != self.count:
            raise ValueError(f"{vector.numel()} values for an adapter of {self.count}")
        parts = torch.split(vector, self.lengths) if self.specs else ()
        return {spec.name: part.reshape(spec.shape).clone() for spec, part in zip(self.specs, parts, strict=True)}

    def to_json(self) -> list[dict[str, Any]]:
        """Return a JSON form that `from_json` reads."""
        return [asdict(spec) for spec in self.specs]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]]) -> Layout:
        """Read what `to_json` wrote."""
        return cls(tuple(TensorSpec(row["name"], tuple(row["shape"]), row["role"]) for row in rows))


def add(left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, scale: float = 1.0) -> State:
    """Return ``left + scale * right`` over the tensors of ``left``; a tensor that ``right`` lacks is kept."""
    return {k: v + scale * right[k] if k in right else v.clone() for k, v in left.items()}


def subtract(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> State:
    """Return ``left - right`` over the tensors of ``left``."""
    return {k: v - right[k] for k, v in left.items()}


def weighted_mean(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> State:
    """Return the mean of ``states`` under ``weights`` (normalised here), summed in float64."""
    total = float(sum(weights))
    return {
        name: sum(
            (s[name].double() * (w / total) for s, w in zip(states, weights, strict=True)),
            start=torch.zeros_like(states[0][name], dtype=torch.float64),
        ).float()
        for name in states[0]
    }


def max_abs_difference(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference over the tensors that both hold; NaN where one is NaN."""
    gaps = [(v - right[k]).abs().max() for k, v in left.items() if k in right]
    return float(torch.stack(gaps).max()) if gaps else 0.0
