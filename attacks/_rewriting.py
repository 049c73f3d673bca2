"""A local search over whole texts: words that change places, and words that are replaced.

Shapes: C candidates, N texts, S slots, d width, V words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._relaxed import Body, Objective

_LIKELY = 12
"""Words of the steepest descent that are drawn from, for each slot."""

_COARSE = 0.0
"""Progress at which texts are compared: whole words are never close enough for the finest directions to guide."""


@dataclass(frozen=True)
class Draft:
    """Texts and how far they are from what was observed."""

    ids: Tensor
    """(N, S)"""
    distance: float


def rewrite(
    body: Body, objective: Objective, ids: Tensor, *, rounds: int, tries: int, longest: int, rng: np.random.Generator
) -> Draft:
    """Return the closest texts found from ``ids`` (N, S) on, ``tries`` changes tried in each of ``rounds``.

    A third of them are swaps, moves and copies of words; the others are replacements, drawn from the words that the
    distance's gradient by the embedding ranks first (as HotFlip, Ebrahimi et al., ACL 2018). Of four rounds one tries
    texts of a word less and one texts of a word more, up to ``longest`` slots.
    """
    draft = Draft(ids, float(_distances(body, objective, ids[None])[0]))
    likely: Tensor | None = None
    for round in range(rounds):
        likely = _ranked(body, objective, draft.ids) if likely is None else likely
        change = _change(round, draft.ids.shape[1], longest)
        others = torch.stack([change(draft.ids, likely, rng) for _ in range(tries)])
        far = _distances(body, objective, others)
        best = int(far.argmin())
        if float(far[best]) < draft.distance:
            draft, likely = Draft(others[best], float(far[best])), None
    return draft


def _change(round: int, slots: int, longest: int) -> Callable[[Tensor, Tensor, np.random.Generator], Tensor]:
    if round % 4 == 2 and slots > 1:
        return _shortened
    if round % 4 == 3 and slots < longest:
        return _lengthened
    return _changed


def _distances(body: Body, objective: Objective, ids: Tensor) -> Tensor:
    """Return the distances (C,) of ``ids`` (C, N, S)."""
    with torch.no_grad():
        return objective.distance(body.embed(ids), progress=_COARSE)


def _ranked(body: Body, objective: Objective, ids: Tensor) -> Tensor:
    """Return for every slot the words that promise the steepest descent, (N, S, likely)."""
    slots = body.embed(ids)[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective.distance(slots, progress=_COARSE).sum(), slots)
    allowed = torch.from_numpy(body.allowed)
    promise = -slope[0] @ body.words[allowed].T
    return allowed[promise.topk(min(_LIKELY, len(allowed)), dim=-1).indices]


def _changed(ids: Tensor, likely: Tensor, rng: np.random.Generator) -> Tensor:
    """Return ``ids`` (N, S) with one change."""
    text, slot, other = (int(rng.integers(n)) for n in (ids.shape[0], ids.shape[1], ids.shape[1]))
    changed = ids.clone()
    row = changed[text].tolist()
    kind = int(rng.integers(9))
    if kind == 0:
        row[slot], row[other] = row[other], row[slot]
    elif kind == 1:
        row.insert(other, row.pop(slot))
    elif kind == 2:
        row[slot] = row[other]
    else:
        row[slot] = int(likely[text, slot, int(rng.integers(likely.shape[2]))])
    changed[text] = torch.tensor(row)
    return changed


def _shortened(ids: Tensor, likely: Tensor, rng: np.random.Generator) -> Tensor:
    """Return ``ids`` with a word less in every text, (N, S - 1)."""
    gone = rng.integers(ids.shape[1], size=len(ids))
    return torch.stack([torch.cat([row[:i], row[i + 1 :]]) for row, i in zip(ids, gone.tolist(), strict=True)])


def _lengthened(ids: Tensor, likely: Tensor, rng: np.random.Generator) -> Tensor:
    """Return ``ids`` with a word more in every text, (N, S + 1): one that promises much at the slot it pushes on."""
    rows = []
    for row, words in zip(ids, likely, strict=True):
        slot, rank = int(rng.integers(len(row))), int(rng.integers(words.shape[1]))
        rows.append(torch.cat([row[:slot], words[slot, rank : rank + 1], row[slot:]]))
    return torch.stack(rows)
