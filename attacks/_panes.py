"""How well the inputs of several layers fit the spaces that one update spans, softly where there is noise.

Shapes: C candidates, N texts, T tokens, d width, r rank, q width of a pane (d or r), k directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._dictionary import Floats
from ._observed import Shown
from ._relaxed import Body
from ._subspace import row_space
from ._taps import tapped

_ROOM = 2
"""Directions that must be left over, or everything fits."""
_RIDGE = 1e-4
"""Keeps the fit of directions by nearly equal inputs stable; squared length of an input is 1."""


@dataclass(frozen=True)
class Pane:
    """The inputs of one module, seen through its factor A or as they are, and the space that they were seen to span."""

    module: str
    factor: Tensor | None
    """(r, d), or ``None`` where the rows of dA show the inputs themselves."""
    basis: Tensor
    """Orthonormal rows, (k, q)."""
    weights: Tensor
    """Share of each direction's power that is not noise, in (0, 1], (k,)."""

    def missed(self, inputs: Tensor) -> Tensor:
        """Return the mean share of the power of ``inputs`` (C, n, d) outside the space, (C,)."""
        seen = self._seen(inputs)
        missed: Tensor = 1 - ((seen @ self.basis.T) ** 2 @ self.weights).mean(1)
        return missed

    def uncovered(self, inputs: Tensor) -> Tensor:
        """Return the share of the space, by weight, outside what ``inputs`` (C, n, d) span, (C,)."""
        seen = self._seen(inputs)
        gram = seen @ seen.transpose(1, 2) + _RIDGE * torch.eye(seen.shape[1])
        shown = seen @ self.basis.T
        inside = (shown * torch.linalg.solve(gram, shown)).sum(1)
        uncovered: Tensor = 1 - (inside @ self.weights) / self.weights.sum()
        return uncovered

    def _seen(self, inputs: Tensor) -> Tensor:
        seen = inputs if self.factor is None else inputs @ self.factor.T
        unit: Tensor = seen / seen.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return unit


@dataclass(frozen=True)
class Alignment:
    """The objective of subspace descent: inputs inside the spaces, and the spaces within what the inputs span."""

    body: Body
    whole: Sequence[Pane]
    """Panes that hold every input of their module."""
    partial: Sequence[Pane]
    """Panes that hold combinations of the inputs, but not all of them."""

    @property
    def tokens(self) -> int:
        """Distinct inputs of the update, as far as the largest space tells."""
        return max(len(pane.basis) for pane in self.whole)

    def distance(self, slots: Tensor, *, progress: float) -> Tensor:
        """Return (C,) for word embeddings ``slots`` (C, N, S, d)."""
        panes = [*self.whole, *self.partial]
        with tapped(self.body.model, [pane.module for pane in panes]) as seen:
            self.body.encode(slots)
        inputs = {name: x.reshape(len(slots), -1, x.shape[-1]) for name, x in seen.items()}
        parts = [pane.missed(inputs[pane.module]) for pane in self.whole]
        parts += [pane.uncovered(inputs[pane.module]) for pane in panes]
        return torch.stack(parts).mean(0)


def make_alignment(body: Body, shown: Shown, *, layers: int, keys: frozenset[str]) -> Alignment | None:
    """Return the objective for one update, over the first ``layers``; ``None`` where its tokens fill what is seen.

    Rows of dB are combinations of A x. A space holds every input if it has as many directions as the update has
    distinct tokens; keys never do, for softmax hides what all keys of a text share.
    """
    changes = [(change, shown.factors[change.module]) for change in shown.of_b] + [(c, None) for c in shown.of_a]
    near = [(change, factor) for change, factor in changes if _depth(change.module) < layers]
    found = [pane for change, factor in near if (pane := _pane(change.module, change.rows, factor)) is not None]
    free = [pane for pane in found if len(pane.basis) <= pane.basis.shape[1] - _ROOM]
    full = {pane.module for pane in found if pane not in free}
    most = max((len(pane.basis) for pane in free if _depth(pane.module) == 0), default=0)
    if not most or full:
        return None
    whole = [p for p in free if len(p.basis) >= most and p.module.rpartition(".")[2] not in keys]
    return Alignment(body, whole, [pane for pane in free if pane not in whole]) if whole else None


def _pane(module: str, rows: Floats, factor: Floats | None) -> Pane | None:
    """Return the pane of ``rows`` (n, q) in units of their noise; ``None`` where nothing stands out.

    A direction of strength s holds s^2 - t^2 of signal, where pure noise reaches t; its weight is that share.
    """
    space = row_space(rows)
    if not space.rank:
        return None
    strengths = ((rows @ space.basis.T) ** 2).sum(0)
    noise = (rows.shape[0] ** 0.5 + rows.shape[1] ** 0.5) ** 2
    weights = torch.from_numpy(np.clip(1 - noise / strengths, 0.05, 1)).float()
    through = None if factor is None else torch.from_numpy(factor).float()
    return Pane(module, through, torch.from_numpy(space.basis).float(), weights)


def _depth(module: str) -> int:
    """Return the number of the layer of ``module``; of what has none, a large one."""
    numbers = [int(part) for part in module.split(".") if part.isdigit()]
    return numbers[0] if numbers else 10**9
