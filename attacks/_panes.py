"""How well the inputs of several layers fit the spaces that one update spans, softly where there is noise.

Shapes: C candidates, N texts, n candidates for one of them, S slots of a text, T tokens, d width, r rank, q width of
a pane (d or r), k directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ._dictionary import Floats
from ._observed import Shown
from ._relaxed import Body, Text
from ._subspace import row_space
from ._taps import tapped

_ROOM = 2
"""Directions that must be left over, or everything fits."""
_RIDGE = 1e-4
"""Keeps the fit of directions by nearly equal inputs stable; squared length of an input is 1."""
_CHUNK = 64
"""Texts of one forward pass."""


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

    def missed(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Return the mean share outside the space of the power of ``inputs`` (C, n, d), (C,).

        Those where ``mask`` (C, n) is 1 count.
        """
        missed: Tensor = 1 - ((self._seen(inputs) @ self.basis.T) ** 2 @ self.weights * mask).sum(1) / mask.sum(1)
        return missed

    def uncovered(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Return the share of the space, by weight, that ``inputs`` (C, n, d) where ``mask`` is 1 do not span, (C,)."""
        seen = self._seen(inputs) * mask[..., None]
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
        """Return (C,) for word embeddings ``slots`` (C, N, S, d), whatever ``progress``."""
        inputs, mask = self.inputs(slots.flatten(0, 1), [slots.shape[2]] * (len(slots) * slots.shape[1]))
        flat = {name: x.reshape(len(slots), -1, x.shape[-1]) for name, x in inputs.items()}
        return self.distance_of(flat, mask.reshape(len(slots), -1))

    def inputs(self, slots: Tensor, lengths: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Return what each module reads, (n, T, d), of texts with embeddings ``slots`` (n, S, d), and their mask."""
        with tapped(self.body.model, [pane.module for pane in (*self.whole, *self.partial)]) as seen:
            self.body.encode(slots, lengths)
        return dict(seen), self.body.framed(slots, lengths)[1]

    def distance_of(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Return (C,) for what each module reads of all texts, (C, N T, d), where ``mask`` (C, N T) is 1."""
        panes = [*self.whole, *self.partial]
        parts = [pane.missed(inputs[pane.module], mask) for pane in self.whole]
        parts += [pane.uncovered(inputs[pane.module], mask) for pane in panes]
        return torch.stack(parts).mean(0)


@dataclass
class Aligned:
    """Texts of whole words whose inputs fit the spaces (a `Fit`)."""

    alignment: Alignment
    texts: list[Text]

    @property
    def body(self) -> Body:
        """The backbone that the texts are read by."""
        return self.alignment.body

    @property
    def share(self) -> float:
        """1 less the distance of all texts."""
        return float(self.place(0).shares([self.texts[0]])[0])

    def place(self, k: int) -> AlignedPlace:
        """Return the place of text ``k``."""
        rest = [text for i, text in enumerate(self.texts) if i != k]
        if not rest:
            return AlignedPlace(self.alignment, self.texts[k], {}, torch.zeros(0))
        with torch.no_grad():
            inputs, mask = self.alignment.inputs(*self.body.embedded(rest))
        return AlignedPlace(
            self.alignment, self.texts[k], {name: x.flatten(0, 1) for name, x in inputs.items()}, mask.flatten()
        )

    def put(self, k: int, text: Text) -> None:
        """Replace text ``k``."""
        self.texts[k] = text


@dataclass(frozen=True)
class AlignedPlace:
    """The place of one text among others whose inputs are known."""

    alignment: Alignment
    text: Text
    others: Mapping[str, Tensor]
    """What each module reads of the others, (m, d); empty where there are none."""
    mask: Tensor
    """Where these are of a text, (m,)."""
    word_cost: ClassVar[float] = 0.0
    """A word too many lies outside of the spaces, which costs enough."""

    def shares(self, texts: Sequence[Text]) -> Tensor:
        """Return 1 less the distance with each of ``texts`` there, (n,)."""
        chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
        with torch.no_grad():
            return torch.cat([self._shares(*self.alignment.body.embedded(chunk)) for chunk in chunks])

    def slopes(self, slots: Tensor) -> Tensor:
        """Return its gradient by ``slots`` (n, S, d)."""
        free = slots.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self._shares(free, [free.shape[1]] * len(free)).sum(), free)
        return slope

    def _shares(self, slots: Tensor, lengths: Sequence[int]) -> Tensor:
        inputs, mask = self.alignment.inputs(slots, lengths)
        if self.others:
            inputs = {n: torch.cat([x, self.others[n].expand(len(x), -1, -1)], dim=1) for n, x in inputs.items()}
            mask = torch.cat([mask, self.mask.expand(len(mask), -1)], dim=1)
        return 1 - self.alignment.distance_of(inputs, mask)


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
