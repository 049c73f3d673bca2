"""The form of claims: what each goal asks for, and what a claim must look like before anybody judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qlorabench.threats.claims import (
    AdapterClaim,
    ClientTexts,
    ExtractionClaim,
    Goal,
    MembershipClaim,
    ReconstructionClaim,
)

CLAIMED: Mapping[Goal, type] = {
    Goal.RECONSTRUCTION: ReconstructionClaim,
    Goal.VERIFICATION: MembershipClaim,
    Goal.MEMBERSHIP: MembershipClaim,
    Goal.ADAPTER: AdapterClaim,
    Goal.EXTRACTION: ExtractionClaim,
}
"""The claim that an attack with that goal returns."""


def claim_problem(
    claim: object, goal: Goal, *, clients: int, candidates: int, adapter: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Return what is wrong with the form of a claim, else ``None``.

    ``clients`` is how many the federation has, ``candidates`` how many examples the membership game asks about, and
    ``adapter`` the shapes of the tensors that travel. How an extraction claim fits its prompts is told by its judge.
    """
    wanted = CLAIMED[goal]
    if not isinstance(claim, wanted):
        return f"it returned a {type(claim).__name__}; an attack whose goal is {goal.value} returns a {wanted.__name__}"
    if not isinstance(note := getattr(claim, "note", ""), str):
        return f"its note is a {type(note).__name__}, not a text"
    if isinstance(claim, MembershipClaim):
        return _scores_problem(claim.scores, candidates)
    if isinstance(claim, AdapterClaim):
        return _adapter_problem(claim.state, adapter)
    if isinstance(claim, ReconstructionClaim):
        return _texts_problem(claim.clients, clients)
    return None


def _scores_problem(scores: Any, candidates: int) -> str | None:
    values = np.asarray(scores)
    if values.shape != (candidates,):
        return f"its scores are of shape {values.shape}; the view has {candidates} candidates, one score each"
    if values.dtype.kind not in "buif":
        return f"its scores are of type {values.dtype}, not real numbers"
    if lost := int(np.count_nonzero(~np.isfinite(values.astype(float)))):
        return f"{lost} of its {candidates} scores are not finite"
    return None


def _adapter_problem(state: Any, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if not isinstance(state, Mapping):
        return f"its state is a {type(state).__name__}, not a mapping of names to tensors"
    if odd := sorted(set(shapes) ^ set(state), key=str):
        return f"its state must hold each tensor that travels and no other; missing or too many: {odd[0]}"
    for name, shape in shapes.items():
        value = state[name]
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != tuple(shape):
            found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            return f"its state has {found} for {name}, which is a tensor of shape {tuple(shape)}"
        if not torch.isfinite(value).all():
            return f"its state has values for {name} that are not finite"
    return None


def _texts_problem(texts: Any, clients: int) -> str | None:
    if not isinstance(texts, Sequence) or not all(isinstance(one, ClientTexts) for one in texts):
        return "its clients must be a tuple of ClientTexts"
    seen: set[int] = set()
    for one in texts:
        if not _whole(one.client) or not 0 <= one.client < clients:
            return f"it names client {one.client!r}; there are clients 0 to {clients - 1}"
        if one.client in seen:
            return f"it names client {one.client} twice"
        seen.add(one.client)
        if not all(map(_whole, one.tokens)):
            return f"it claims tokens of client {one.client} that are not whole numbers"
        if not all(isinstance(pair, tuple) and len(pair) == 2 and all(map(_whole, pair)) for pair in one.placed):
            return f"it claims places of client {one.client} that are not pairs (position, token id)"
        if isinstance(one.texts, str) or not all(isinstance(text, str) for text in one.texts):
            return f"it claims texts of client {one.client} that are not a tuple of texts"
    return None


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
