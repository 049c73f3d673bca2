"""What an update of B says of each attention head: a few directions out of the span of the text's keys or queries.

With attention to key s from query t, the loss reaches the query as sum_s w_ts k_s, where sum_s w_ts = 0 because a
softmax does not feel a shift of all its inputs, and reaches the key as sum_t w_ts q_t. So in every head

    dB_query = (K - k_0)' w' X A'   columns in the span of the keys, the opening token's taken off
    dB_key   = Q' w X A'            columns in the span of the queries

whatever the factor A is, frozen or trained. In the first adapted layer the keys and queries of every (token, position)
pair are public. Shapes: V tokens, M positions, S heads, h width of a head, r rank, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.lab import Lab

from ._dictionary import Dictionary, Floats, Ints
from ._observed import KEYS, Change

Singles: TypeAlias = npt.NDArray[np.float32]
QUERIES = frozenset({"query", "q_lin"})
"""Query projections of models that add positions to the embeddings."""
PLACED = QUERIES | {"key", "k_lin"}
"""With their keys. Rotary models turn every pair of query and key differently, so that no span is left."""


def heads_hidden(facts: PublicFacts) -> str | None:
    """Return why updates say nothing of heads: an adaptive optimizer, or neither query nor key that could be read."""
    if facts.training.optimizer.kind == "adamw":
        return "AdamW rescales every element of the update, so its columns leave the span of keys and queries"
    if not PLACED & set(facts.lora.targets):
        return "rotary positions turn every pair of tokens differently; it reads the query and key of others alone"
    return None


@dataclass(frozen=True)
class Side:
    """One product of all heads: the keys that reach the query module, or the queries that reach the key module.

    Rows of ``changes`` and of ``weight`` are divided by the noise of the row: elements of ``changes`` carry unit noise.
    """

    changes: Floats
    """The heads' rows of dB, (S, h, r)."""
    weight: Floats
    """The projection that makes the atoms, (S, h, d)."""
    bias: Floats
    """(S, h), with the opening token's key taken off."""
    opened: bool
    """Whether the opening token is an atom of its own; of keys it is the origin."""

    def atoms(self, inputs: Floats) -> Floats:
        """Return the keys (queries) of ``inputs`` (n, d) as (S, h, n)."""
        atoms: Floats = self.weight @ inputs.T + self.bias[:, :, None]
        return atoms


def read_sides(
    lab: Lab, held: Mapping[str, Tensor], changes: Sequence[Change], *, opening: Floats | None
) -> list[Side]:
    """Return the sides that the changes of B of one update show, for clients who trained from ``held``.

    ``opening`` is the input (d,) of the token that opens every text, if there is one.
    """
    modules = dict(lab.model.encoder.get_base_model().named_modules())
    heads = int(lab.model.encoder.get_base_model().config.num_attention_heads)
    state = {**lab.start, **held}
    sides = []
    for change in changes:
        parent, _, kind = change.module.rpartition(".")
        is_query = kind in QUERIES
        other = _sibling(modules, parent, KEYS if is_query else QUERIES)
        if not other or not (is_query or kind in KEYS):
            continue
        weight, bias = _projection(modules[other], state, other, lab.model.scaling)
        if is_query and opening is not None:
            bias = -weight @ opening
        whitened = [rows / (change.noise[:, None] if rows.ndim == 2 else change.noise) for rows in (weight, bias)]
        cut = [part.reshape(heads, -1, *part.shape[1:]) for part in (change.rows, *whitened)]
        sides.append(Side(cut[0], cut[1], cut[2], opened=not is_query or opening is None))
    return sides


def _sibling(modules: Mapping[str, Any], parent: str, names: frozenset[str]) -> str | None:
    return next((f"{parent}.{name}" for name in sorted(names) if f"{parent}.{name}" in modules), None)


def _projection(module: Any, state: Mapping[str, Tensor], name: str, scaling: float) -> tuple[Floats, Floats]:
    """Return weight (d_out, d) and bias (d_out,) that the clients computed with, the adapter included."""
    base = getattr(module, "base_layer", module)
    weight: Floats = base.weight.detach().double().numpy()
    if f"{name}.A" in state:
        weight = weight + scaling * (state[f"{name}.B"].double() @ state[f"{name}.A"].double()).numpy()
    bias = np.zeros(len(weight)) if base.bias is None else base.bias.detach().double().numpy()
    return weight, bias


@dataclass(frozen=True)
class Atoms:
    """The atoms of many pairs for one side, in single precision, (S, h, n)."""

    values: Singles

    def shares(self, free: Floats, signal: Floats) -> Singles:
        """Return the share of each atom's power outside what is explained that lies in the signal, (S, n).

        ``free`` (S, h, f) and ``signal`` (S, h, k) are orthonormal but for columns of zeros.
        """
        inside = (np.swapaxes(signal, 1, 2).astype(np.float32) @ self.values) ** 2
        outside = (np.swapaxes(free, 1, 2).astype(np.float32) @ self.values) ** 2
        whole, part = outside.sum(1), inside.sum(1)
        spanned = whole < 1e-5 * (self.values**2).sum(1)
        shares: Singles = np.where(spanned, 0, part / np.maximum(whole, np.finfo(np.float32).tiny))
        return shares


_STRIDE = 3
_TOKENS = 4000


def best_pairs(
    dictionary: Dictionary, views: Sequence[tuple[Side, Floats, Floats]], *, count: int
) -> tuple[Ints, Ints]:
    """Return tokens and positions of the ``count`` pairs with the largest share of their free power in the signal.

    A view is a side with its free directions (S, h, f) and its signal (S, h, k). Every token is looked at on every
    third position, since a word changes little from one to the next, and the best tokens then on all.
    """
    sparse = replace(dictionary, places=dictionary.places[::_STRIDE], spread=dictionary.spread[:, ::_STRIDE])
    tokens = _largest(_shares(sparse, views).max(1), _TOKENS)
    total = _shares(dictionary.only(tokens), views)
    rows, positions = np.divmod(_largest(total.ravel(), count), total.shape[1])
    return tokens[rows], positions


def _largest(values: Singles, count: int) -> Ints:
    """Return the indices of the ``count`` largest values, ascending."""
    if count >= len(values):
        return np.arange(len(values))
    return np.sort(np.argpartition(-values, count)[:count])


def _shares(dictionary: Dictionary, views: Sequence[tuple[Side, Floats, Floats]]) -> Singles:
    """Return for every pair the sum over heads of the share of its free power that is in the signal, (V, M)."""
    total = np.zeros(dictionary.spread.shape, np.float32)
    for side, free, signal in views:
        for weight, bias, directions, basis in zip(side.weight, side.bias, free, signal, strict=True):
            if basis.any():
                whole = _powers(dictionary, directions.T @ weight, directions.T @ bias)
                inside = _powers(dictionary, basis.T @ weight, basis.T @ bias)
                seen = whole > 1e-4 * whole.max()
                total += np.divide(inside, whole, out=np.zeros_like(whole), where=seen)
    return total


def _powers(dictionary: Dictionary, weight: Floats, bias: Floats) -> Singles:
    """Return |weight x + bias|^2 for the inputs x of all pairs, (V, M), without forming them."""
    words = (dictionary.words @ weight[:, dictionary.order].T).astype(np.float32)
    places = (dictionary.places @ weight.T).astype(np.float32)
    shift = (weight @ dictionary.shift + bias).astype(np.float32)
    inverse = (1 / dictionary.spread).astype(np.float32)
    powers: Singles = (words**2).sum(1)[:, None] + (places**2).sum(1)
    powers += 2 * words @ places.T
    powers *= inverse
    powers += 2 * ((words @ shift)[:, None] + places @ shift)
    powers *= inverse
    powers += shift @ shift
    return powers
