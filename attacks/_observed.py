"""What a view shows of the first adapted layer: the factor changes of each update, in units of their noise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import Role, State, TensorSpec
from qlorabench.threats.view import Update, View

from ._dictionary import Floats
from ._noise import RELATIVE, codec_variances, privacy_variance, rounding_variances

KEYS = frozenset({"key", "k_proj", "k_lin"})
"""Names of key projections."""
_PROJECTIONS = KEYS | {"query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "c_attn"}


def first_modules(facts: PublicFacts, *, width: int) -> list[str]:
    """Return the adapted attention projections of layer 0: those that read the embeddings of ``width``."""
    return layer_modules(facts, 0, width=width)


def layer_modules(facts: PublicFacts, layer: int, *, width: int) -> list[str]:
    """Return the adapted attention projections of ``layer`` (from 0), all of which read the same input."""
    return [
        spec.module
        for spec in facts.full.only("A")
        if spec.shape[1] == width and spec.module.rpartition(".")[2] in _PROJECTIONS and _layer(spec) == layer
    ]


def _layer(spec: TensorSpec) -> int | None:
    number = re.search(r"(?:^|\.)(\d+)\.", spec.module)
    return int(number[1]) if number and "cross" not in spec.module else None


@dataclass(frozen=True)
class Change:
    """What one update changed of one factor of one module."""

    module: str
    rows: Floats
    """Rows of the change divided by the noise of their elements: (rank, d_in) of A, (d_out, rank) of B."""
    noise: Floats
    """Standard deviation of the noise in each row, (rows,)."""


@dataclass(frozen=True)
class Shown:
    """What one update shows of one layer: all that changed, and the factors A that the client started from."""

    round: int
    of_a: tuple[Change, ...]
    of_b: tuple[Change, ...]
    factors: Mapping[str, Floats]
    """(rank, d_in) by module."""


def client_shows(view: View, client: int, *, modules: list[str]) -> list[Shown]:
    """Return what each update of ``client`` shows of the layer of ``modules``, in the order of the rounds."""
    held = {message.round: message.state for message in view.broadcasts}
    return [_shown(view, u, held[u.round], modules=modules) for u in view.updates if u.client == client]


def evenly(shown: Sequence[Shown], count: int) -> list[Shown]:
    """Return ``count`` of ``shown``, evenly spread from the first one on."""
    places = np.unique(np.linspace(0, len(shown) - 1, min(count, len(shown))).astype(int))
    return [shown[i] for i in places]


def _shown(view: View, update: Update, held: State, *, modules: list[str]) -> Shown:
    names = {module: f"{module}.A" for module in modules}
    factors = {m: (held[n] if n in held else view.lab.start[n]).double().numpy() for m, n in names.items()}
    roles: tuple[Role, Role] = ("A", "B")
    of = [[m for m in modules if f"{m}.{role}" in update.state] for role in roles]
    changes = [_changes(view.facts, update, held, modules=m, role=r) for m, r in zip(of, roles, strict=True)]
    return Shown(update.round, tuple(changes[0]), tuple(changes[1]), factors)


def _changes(facts: PublicFacts, update: Update, held: State, *, modules: list[str], role: Role) -> list[Change]:
    private = privacy_variance(facts, client=update.client, round=update.round)
    coded = codec_variances(update, facts)
    changes = []
    for module in modules:
        name = f"{module}.{role}"
        change = update.state[name]
        if bool(torch.isfinite(change).all()) and bool(change.any()):
            training = _training_variances(held[name], change, steps=facts.training.local_steps, role=role)
            known = 0.0 if update.noise is None else update.noise[name].double().numpy().mean(1)
            noise = np.sqrt(training + private + coded.get(name, 0.0) + known)
            changes.append(Change(module, change.double().numpy() / noise[:, None], noise))
    return changes


def _training_variances(held: Tensor, change: Tensor, *, steps: int, role: Role) -> Floats:
    """Return the variance of float32 training in each row, (rows,).

    B starts at zero, where float32 is finest, and a row of it may be what is left of larger terms: its rows
    share their mean.
    """
    rounding = rounding_variances(held, change, steps=steps)
    variances: Floats = rounding + RELATIVE**2 * (change.double().numpy() ** 2).mean(1)
    return np.full(len(variances), variances.mean()) if role == "B" else variances
