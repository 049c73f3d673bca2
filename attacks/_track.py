"""The course of a quantized adapter as one seat saw it, and estimators of where it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qlorabench.codecs import BlockCodec
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import Layout, weighted_mean
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import View

_CODEC = ("bits", "codebook", "block_size", "rounding", "double_quantization")


class Estimate(NamedTuple):
    """An estimate of the server's adapter, flat, and how it was made."""

    label: str
    values: Tensor


class Intersection(NamedTuple):
    """Midpoints of the intersected cells, and the share of steps at which an intersection was empty."""

    values: Tensor
    empty: float


@dataclass(frozen=True)
class Track:
    """Everything seen, as flat float64 vectors over the travelling factors."""

    values: Tensor
    """(broadcasts, coordinates): decoded broadcasts."""
    low: Tensor
    high: Tensor
    """(broadcasts, coordinates): cells of the codes."""
    drift: Tensor
    """(broadcasts - 1, coordinates): known drift from each broadcast to the next."""
    size: Tensor
    """(broadcasts - 1, coordinates): root mean square of the drift within the coordinate's tensor."""

    @classmethod
    def of(cls, view: View, codec: BlockCodec) -> Track:
        """Return the track of a view whose broadcasts were made by ``codec``."""
        layout = view.facts.travelling.only("A", "B")
        cells = [codec.cells(b.payload, lengths=layout.lengths) for b in view.broadcasts]
        values = torch.stack([layout.flatten(b.state).double() for b in view.broadcasts])
        drift = _known_drift(view, layout)
        moves = drift if view.has(Capability.OWN_UPDATES) else values.diff(dim=0)
        return cls(
            values,
            torch.stack([torch.cat([c.low.double() for c in row]) for row in cells]),
            torch.stack([torch.cat([c.high.double() for c in row]) for row in cells]),
            drift,
            _size_by_tensor(moves, layout),
        )

    @property
    def last(self) -> int:
        """Index of the last broadcast."""
        return len(self.values) - 1

    def mean(self, window: int, carry: float, *, end: int) -> Tensor:
        """Return the mean of the ``window`` broadcasts up to ``end``, moved on by ``carry`` times the drift."""
        start = max(0, end + 1 - window)
        later = self.drift[start:end].flip(0).cumsum(0).sum(0)  # drift t moves every broadcast up to t
        return (self.values[start : end + 1].sum(0) + carry * later) / (end + 1 - start)

    def prediction_error(self, window: int, carry: float, *, target: int) -> float:
        """Return the mean squared error of predicting broadcast ``target`` from the ones before it."""
        ahead = self.mean(window, carry, end=target - 1) + carry * self.drift[target - 1]
        return float((ahead - self.values[target]).square().mean())

    def intersection(self, spread: float) -> Intersection:
        """Return the midpoints of the cells, carried forward, widened by ``spread`` and intersected."""
        low, high, empty = self.low[0], self.high[0], 0.0
        for t in range(1, self.last + 1):
            step, slack = self.drift[t - 1], spread * self.size[t - 1]
            low = torch.maximum(low + step - slack, self.low[t])
            high = torch.minimum(high + step + slack, self.high[t])
            gone = low > high
            low, high = torch.where(gone, self.low[t], low), torch.where(gone, self.high[t], high)
            empty += float(gone.double().mean()) / self.last
        return Intersection((low + high) / 2, empty)


def broadcast_codec(facts: PublicFacts) -> BlockCodec | None:
    """Return the codec of a system's broadcasts, or ``None`` where they are not quantized."""
    defense = facts.defense("quantized-broadcast")
    if defense is None:
        return None
    config: dict[str, Any] = {name: defense.config[name] for name in _CODEC}
    return BlockCodec(**config)


def _known_drift(view: View, layout: Layout) -> Tensor:
    """Return the drift that the seat's own updates stand for, (rounds, coordinates); zero without updates."""
    rounds = len(view.broadcasts) - 1
    if not view.has(Capability.OWN_UPDATES):
        return torch.zeros(rounds, layout.count, dtype=torch.float64)
    defense = view.facts.defense("quantized-broadcast")
    lr = float(defense.config["server_lr"]) if defense else 1.0
    by_examples = view.facts.training.weighting == "examples"
    rows: list[Tensor] = []
    for round in range(rounds):
        mine = [u for u in view.own_updates if u.round == round]
        weights: Sequence[float] = [view.facts.client_rows[u.client] if by_examples else 1.0 for u in mine]
        rows.append(lr * layout.flatten(weighted_mean([u.state for u in mine], weights)).double())
    return torch.stack(rows) if rows else torch.zeros(0, layout.count, dtype=torch.float64)


def _size_by_tensor(moves: Tensor, layout: Layout) -> Tensor:
    parts = torch.split(moves, layout.lengths, dim=1)
    return torch.cat([p.square().mean(1, keepdim=True).sqrt().expand_as(p) for p in parts], dim=1)
