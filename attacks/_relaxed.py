"""Texts as free vectors in place of words, descended on, and read back as words at places.

Shapes: C candidates, N texts of an update, S slots of a text (opening and closing token left out), T tokens, d width,
V words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qlorabench.federation.model import AdapterModel
from qlorabench.threats.lab import Lab

from ._dictionary import Dictionary, Floats, Ints
from ._taps import tapped

Text = list[int]
"""Token ids, without those that open and close a text."""
_UNWRITTEN = re.compile(r"\[unused\d+\]")
"""Entries of BERT's vocabulary that no text is made of."""
_FAR = 1e9


class Objective(Protocol):
    """How far the texts of each candidate are from what was observed."""

    def distance(self, slots: Tensor, *, progress: float) -> Tensor:
        """Return (C,) for word embeddings ``slots`` (C, N, S, d); ``progress`` in [0, 1] goes from coarse to fine."""


@dataclass(frozen=True)
class Body:
    """The public backbone under the adapter that is mounted, fed with vectors."""

    model: AdapterModel
    dictionary: Dictionary
    first_module: str
    """An adapted module that reads the dictionary's inputs."""
    allowed: Ints
    """Words that a text may be made of."""
    ends: tuple[int, int] | None
    """The tokens that open and close every text, where there are such."""

    @property
    def words(self) -> Tensor:
        """Embeddings of all words, (V, d)."""
        weight: Tensor = self.model.encoder.get_base_model().get_input_embeddings().weight
        return weight.detach()

    @property
    def opened(self) -> int:
        """Tokens before the first slot."""
        return 0 if self.ends is None else 1

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings of ``ids``, with a last dimension d."""
        return self.words[ids]

    def framed(self, slots: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return vectors (N, T, d) for ``slots`` (N, S, d), of which the first of ``lengths`` count, and their mask.

        Opening and closing tokens stand where the texts begin and end. The mask (N, T) is 1 where there is a text.
        """
        ends = torch.tensor(lengths)[:, None]
        if self.ends is None:
            return slots, (torch.arange(slots.shape[1]) < ends).long()
        count, width = len(slots), slots.shape[2]
        opening, closing = (self.words[token].expand(count, 1, width) for token in self.ends)
        inside = (torch.arange(slots.shape[1]) < ends)[..., None]
        padded = torch.where(inside, slots, torch.zeros(()))
        vectors = torch.cat([opening, padded, torch.zeros(count, 1, width)], dim=1)
        places = torch.arange(vectors.shape[1])
        return torch.where((places == 1 + ends)[..., None], closing, vectors), (places < 2 + ends).long()

    def encode(self, slots: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the last layer's representations (N, T, d) for ``slots`` (N, S, d) of ``lengths``, and their mask.

        The plain form of attention is asked for: fused kernels cannot be differentiated twice.
        """
        from torch.nn.attention import SDPBackend, sdpa_kernel

        vectors, mask = self.framed(slots, lengths)
        with sdpa_kernel(SDPBackend.MATH):
            hidden: Tensor = self.model.encoder(inputs_embeds=vectors, attention_mask=mask).last_hidden_state
        return hidden, mask

    def embedded(self, texts: Sequence[Text]) -> tuple[Tensor, list[int]]:
        """Return the embeddings (n, S, d) of ``texts``, the shorter ones filled up, and their lengths."""
        lengths = [len(text) for text in texts]
        ids = torch.zeros(len(texts), max(lengths), dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = torch.tensor(text)
        return self.embed(ids), lengths

    def read(self, slots: Tensor) -> Tensor:
        """Return the words that ``slots`` (N, S, d) are closest to, each at a place of its own, as ids (N, S).

        Slots carry no order but for what the descent gave them: tokens and places are assigned together.
        """
        with torch.no_grad(), tapped(self.model, [self.first_module]) as seen:
            self.encode(slots, [slots.shape[1]] * len(slots))
        inputs = seen[self.first_module].double().numpy()
        inner = inputs[:, self.opened : inputs.shape[1] - self.opened]
        return torch.from_numpy(np.stack([self._assign(text) for text in inner]))

    def _assign(self, inputs: Floats) -> Ints:
        """Return the words (S,) of one text for the inputs (S, d) of the first adapted layer."""
        from scipy.optimize import linear_sum_assignment

        count = len(inputs)
        places = np.arange(self.opened, self.opened + count) if self.dictionary.tells_places else np.array([0])
        costs, words = np.full((count, count), _FAR), np.zeros((count, count), np.int64)
        for slot, vector in enumerate(inputs):
            far = self._distances(vector, places)
            best = far.argmin(0)
            at = slice(None) if self.dictionary.tells_places else slice(slot, slot + 1)
            costs[slot, at], words[slot, at] = far[best, np.arange(len(places))], self.allowed[best]
        rows, at_place = linear_sum_assignment(costs)
        found: Ints = np.zeros(count, np.int64)
        found[at_place] = words[rows, at_place]
        return found

    def _distances(self, vector: Floats, places: Ints) -> Floats:
        """Return |x(v, i) - vector|^2 for the allowed words v and ``places`` i, less |vector|^2."""
        dictionary = self.dictionary
        words = (dictionary.words @ vector[dictionary.order])[self.allowed]
        product = (words[:, None] + dictionary.places[places] @ vector) / dictionary.spread[
            np.ix_(self.allowed, places)
        ]
        far: Floats = dictionary.lengths[np.ix_(self.allowed, places)] - 2 * (product + dictionary.shift @ vector)
        return far


def make_body(lab: Lab, dictionary: Dictionary, *, first_module: str) -> Body:
    """Return the body of the lab's model, whose inputs at ``first_module`` are those of ``dictionary``."""
    lab.model.train_only(type(lab.model.layout)(()))
    tokenizer = lab.tokenizer
    opening, closing = (getattr(tokenizer, name, None) for name in ("cls_token_id", "sep_token_id"))
    ends = None if opening is None or closing is None else (int(opening), int(closing))
    allowed = written_words(tokenizer, count=len(dictionary.words))
    return Body(lab.model, dictionary, first_module, allowed, ends)


def written_words(tokenizer: Any, *, count: int) -> Ints:
    """Return the ids below ``count`` that a text may be made of: neither special nor reserved."""
    special: Collection[int] = set(tokenizer.all_special_ids)
    name = getattr(tokenizer, "convert_ids_to_tokens", None)
    names = [""] * count if name is None else name(list(range(min(count, len(tokenizer)))))
    return np.array([i for i, word in enumerate(names) if i not in special and not _UNWRITTEN.match(word or "")])


def draw(body: Body, shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Return slots near the mean word, (*shape, d)."""
    words = body.words
    noise = torch.from_numpy(rng.normal(size=(*shape, words.shape[1]))).float()
    return words.mean(0) + 0.5 * words.std() * noise


def descend(body: Body, objective: Objective, start: Tensor, *, steps: int, rate: float, penalty: float) -> Tensor:
    """Return slots (C, N, S, d) after ``steps`` of Adam on each candidate's distance.

    ``rate`` is in standard deviations of the embeddings. Free vectors drift to the mean word, where many rare ones
    lie: ``penalty`` holds each of them as far from it as words commonly are.
    """
    words = body.words
    mean, size = words.mean(0), words.std()
    usual = (words - mean).norm(dim=1).mean()
    free = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([free])
    for step in range(steps):
        progress = step / steps
        optimizer.param_groups[0]["lr"] = rate * float(size) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        off = (((free - mean).norm(dim=-1) / usual - 1) ** 2).mean((1, 2))
        total = (objective.distance(free, progress=progress) + penalty * off).sum()
        (free.grad,) = torch.autograd.grad(total, free)
        optimizer.step()
    return free.detach()
