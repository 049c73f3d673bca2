"""Every input of the first adapted layer: LayerNorm(e_v + p_i) for all tokens v and positions i, never stored.

Embeddings are frozen and no adapter comes before them, so these inputs are public and the same in all rounds.
Shapes: V tokens, M positions, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dictionary:
    """The inputs x(v, i) = (words_v + places_i) / spread_vi + shift, in float64."""

    words: Floats
    """gamma * (e_v - mean e_v), (V, d)."""
    places: Floats
    """gamma * (p_i - mean p_i), with the token type in it, (M, d)."""
    shift: Floats
    """The bias beta of the LayerNorm, (d,)."""
    spread: Floats
    """Standard deviation of e_v + p_i, (V, M)."""
    order: Ints
    """(d,): the order in which the words' coordinates are read, which is what makes a decoy."""

    @property
    def tells_places(self) -> bool:
        """Whether a position enters the inputs; where it does not, there is one place for all."""
        return len(self.places) > 1

    def inputs(self, tokens: Ints, positions: Ints) -> Floats:
        """Return the inputs of the pairs, (n, d)."""
        words = self.words[tokens][:, np.argsort(self.order)]
        return (words + self.places[positions]) / self.spread[tokens, positions][:, None] + self.shift

    def word_energy(self, basis: Floats) -> Floats:
        """Return the squared length of the words within the rows of ``basis`` (k, d), as (V,)."""
        inside: Floats = ((self.words @ basis[:, self.order].T) ** 2).sum(1)
        return inside

    def energy(self, basis: Floats) -> Floats:
        """Return the squared length of every input within the rows of ``basis`` (k, d), as (V, M)."""
        words = self.words @ basis[:, self.order].T
        return _squares(words, self.places @ basis.T, basis @ self.shift, self.spread)

    @cached_property
    def lengths(self) -> Floats:
        """Squared length of every input, (V, M)."""
        return _squares(self.words[:, np.argsort(self.order)], self.places, self.shift, self.spread)

    @cached_property
    def word_lengths(self) -> Floats:
        """Squared length of every word, (V,)."""
        lengths: Floats = (self.words**2).sum(1)
        return lengths

    def through(self, factor: Floats) -> Dictionary:
        """Return the same inputs as seen behind ``factor`` A, (rank, d): words of shape (V, rank)."""
        words = self.words @ factor[:, self.order].T
        return Dictionary(words, self.places @ factor.T, factor @ self.shift, self.spread, np.arange(len(factor)))

    def only(self, tokens: Ints) -> Dictionary:
        """Return the dictionary of ``tokens`` alone."""
        return Dictionary(self.words[tokens], self.places, self.shift, self.spread[tokens], self.order)

    def decoy(self, order: Ints) -> Dictionary:
        """Return words of the same lengths and mutual angles that no text is made of; positions stay."""
        return Dictionary(self.words, self.places, self.shift, self.spread, order)


def make_dictionary(words: Floats, *, places: Floats, gain: Floats, shift: Floats, epsilon: float) -> Dictionary:
    """Return the dictionary of embeddings (V, d) and (M, d) under a LayerNorm.

    The variance of a sum splits into a token, a position and a mixed term, so that no (V, M, d) is formed.
    """
    words, places = words - words.mean(1, keepdims=True), places - places.mean(1, keepdims=True)
    sums = (words**2).sum(1)[:, None] + 2 * words @ places.T + (places**2).sum(1)
    spread = np.sqrt(sums / words.shape[1] + epsilon)
    return Dictionary(words * gain, places * gain, shift, spread, np.arange(words.shape[1]))


def make_rotary_dictionary(words: Floats, *, gain: Floats, epsilon: float) -> Dictionary:
    """Return the dictionary of embeddings (V, d) under an RMSNorm, which no position enters: one place, M = 1."""
    spread = np.sqrt((words**2).mean(1, keepdims=True) + epsilon)
    nowhere: Floats = np.zeros((1, words.shape[1]))
    return Dictionary(words * gain, nowhere, nowhere[0], spread, np.arange(words.shape[1]))


def read_dictionary(encoder: Any, *, positions: int) -> Dictionary | None:
    """Return the dictionary of a backbone, ``None`` where its embeddings are of another kind.

    Read are BERT's (words, positions and types under a LayerNorm), GPT-2's (words and positions under the first
    block's LayerNorm) and Llama's (words under the first block's RMSNorm; positions enter as rotations, later).
    """
    bodies = [body for body in (encoder, *(getattr(encoder, n, None) for n in ("transformer", "model"))) if body]
    found = (read(body, positions) for body in bodies for read in (_read_bert, _read_gpt2, _read_llama))
    return next((dictionary for dictionary in found if dictionary is not None), None)


def _read_bert(encoder: Any, positions: int) -> Dictionary | None:
    """RoBERTa counts positions from behind its padding index; models without token types have none to add."""
    layer = getattr(encoder, "embeddings", None)
    parts = [getattr(layer, name, None) for name in ("word_embeddings", "position_embeddings", "LayerNorm")]
    if any(part is None for part in parts):
        return None
    words, places, norm = parts
    first = 0 if places.padding_idx is None else places.padding_idx + 1  # type: ignore[union-attr]
    table = _array(places.weight)[first : first + positions]  # type: ignore[union-attr]
    types = getattr(layer, "token_type_embeddings", None)
    return make_dictionary(
        _array(words.weight),  # type: ignore[union-attr]
        places=table if types is None else table + _array(types.weight)[0],
        gain=_array(norm.weight),  # type: ignore[union-attr]
        shift=_array(norm.bias),  # type: ignore[union-attr]
        epsilon=float(norm.eps),  # type: ignore[union-attr]
    )


def _read_gpt2(decoder: Any, positions: int) -> Dictionary | None:
    words, places, blocks = (getattr(decoder, name, None) for name in ("wte", "wpe", "h"))
    norm = getattr(blocks[0], "ln_1", None) if blocks else None
    if words is None or places is None or norm is None:
        return None
    return make_dictionary(
        _array(words.weight),
        places=_array(places.weight)[:positions],
        gain=_array(norm.weight),
        shift=_array(norm.bias),
        epsilon=float(norm.eps),
    )


def _read_llama(decoder: Any, positions: int) -> Dictionary | None:
    words, blocks = getattr(decoder, "embed_tokens", None), getattr(decoder, "layers", None)
    norm = getattr(blocks[0], "input_layernorm", None) if blocks else None
    if words is None or norm is None or not hasattr(norm, "variance_epsilon"):
        return None
    return make_rotary_dictionary(_array(words.weight), gain=_array(norm.weight), epsilon=float(norm.variance_epsilon))


def _array(tensor: Any) -> Floats:
    values: Floats = tensor.detach().double().cpu().numpy()
    return values


def _squares(words: Floats, places: Floats, shift: Floats, spread: Floats) -> Floats:
    """Return |(words_v + places_i) / spread_vi + shift|^2 without forming the vectors, (V, M)."""
    sums = (words**2).sum(1)[:, None] + (places**2).sum(1) + 2 * words @ places.T
    mixed = (words @ shift)[:, None] + places @ shift
    squares: Floats = sums / spread**2 + 2 * mixed / spread + shift @ shift
    return squares
