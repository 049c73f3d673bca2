"""Texts of whole words that explain an update, bettered word by word, by length and by order.

Shapes: N texts of an update, S slots of a text, d width, C classes, D elements of the update, m gradients of all texts
but one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from numpy.random import Generator
from torch import Tensor

from ._backdrop import Backdrop, explained

_BEST = 3
"""Words of the steepest ascent that are looked at for each slot."""
_INSERTED = 4
"""The same where a word is put in."""
_LEAST = 1e-5
"""An exchange must explain so much more of what is left."""
_WHOLE = 0.999
"""Share of an update beyond which texts are held to be the ones."""
_SEGMENT = 5
"""Most words that are moved together."""

Text = list[int]


@dataclass
class Exchange:
    """Texts of an update that change as long as more of it is explained."""

    backdrop: Backdrop
    texts: list[Text]
    longest: int
    """Most words of a text."""

    def __post_init__(self) -> None:
        self.features = self.backdrop.of_words(self.texts)

    @property
    def share(self) -> float:
        """Of the update, what the texts' gradients span."""
        return float(explained(self.features.flatten(0, 1), self.backdrop.target))

    @property
    def complete(self) -> bool:
        """Whether all of the update is explained."""
        return self.share > _WHOLE

    def run(self, words: Sequence[Tensor], *, tries: int, moves: int, rng: Generator) -> None:
        """Go over the texts once for each of ``words``, from which exchanges take theirs; end where nothing helps.

        Of each text ``tries`` words are exchanged, and ``moves`` of its other orders are looked at.
        """
        moved = True
        for number, allowed in enumerate(words):
            if self.complete or (not moved and words[number - 1] is allowed):
                continue
            each = range(len(self.texts))
            helped = [self._improve(k, allowed, tries) for k in each]
            stretched = [self._stretch(k, allowed, rng) for k in each]
            moved = any([*helped, *stretched, *(self._reorder(k, moves, rng) for k in each)])

    def _improve(self, k: int, allowed: Tensor, tries: int) -> bool:
        """Exchange words of text ``k`` where that explains more of what the other texts leave, and tell whether.

        Of the ``tries`` words that the gradient by the embeddings ranks first (HotFlip, Ebrahimi et al., ACL 2018)
        those that help are put in together as far as that helps.
        """
        text, basis, left = self._left(k)
        before = float(explained(_outside(self.features[k], basis), left))
        moves = self._moves(text, basis, left, allowed)[:tries]
        if not moves:
            return False
        singles = [_put(text, [move]) for move in moves]
        gains = self._gains(singles, basis, left) - before
        helpful: dict[int, tuple[int, int]] = {}
        for i in torch.argsort(-gains).tolist():
            if float(gains[i]) > _LEAST:
                helpful.setdefault(moves[i][0], moves[i])
        ranked = list(helpful.values())
        if not ranked:
            return False
        joint = [_put(text, ranked[:count]) for count in range(1, len(ranked) + 1)]
        return self._best_of(joint, k, basis, left)

    def _stretch(self, k: int, allowed: Tensor, rng: Generator) -> bool:
        """Take a word out of text ``k`` or put one in where that explains more, and tell whether."""
        text, basis, left = self._left(k)
        shorter = [[*text[:i], *text[i + 1 :]] for i in range(len(text)) if len(text) > 1]
        longer = self._longer(text, basis, left, allowed, rng) if len(text) < self.longest else []
        return self._best_of([*shorter, *longer], k, basis, left)

    def _longer(self, text: Text, basis: Tensor, left: Tensor, allowed: Tensor, rng: Generator) -> list[Text]:
        """Return ``text`` with one word more: one of its own is put into each gap, and those on its steepest ascent.

        The mean embedding is no such word: on the way from it to any other the gradients bend.
        """
        body, gaps, own = self.backdrop.body, range(len(text) + 1), text[int(rng.integers(len(text)))]
        slots = body.embed(torch.tensor([[*text[:i], own, *text[i:]] for i in gaps])).clone().requires_grad_()
        features = self.backdrop.features(slots, [len(text) + 1] * len(slots))
        (slope,) = torch.autograd.grad(explained(_outside(features, basis), left).sum(), slots)
        promise = slope[list(gaps), list(gaps)] @ body.words[allowed].T
        top = allowed[promise.topk(min(_INSERTED, len(allowed)), dim=1).indices].tolist()
        return [[*text[:i], token, *text[i:]] for i in gaps for token in (own, *top[i])]

    def _reorder(self, k: int, moves: int, rng: Generator) -> bool:
        """Put the words of text ``k`` in the best of ``moves`` other orders if it explains more, and tell whether."""
        text, basis, left = self._left(k)
        orders = other_orders(text)
        some = rng.permutation(len(orders))[:moves]
        return self._best_of([orders[i] for i in some], k, basis, left)

    def _best_of(self, others: Sequence[Text], k: int, basis: Tensor, left: Tensor) -> bool:
        """Replace text ``k`` by the best of ``others`` if that explains more of ``left`` (D,), and tell whether."""
        if not others:
            return False
        gains = self._gains(others, basis, left) - float(explained(_outside(self.features[k], basis), left))
        best = int(gains.argmax())
        if float(gains[best]) <= _LEAST:
            return False
        self.texts[k] = list(others[best])
        self.features[k] = self.backdrop.of_words([self.texts[k]])[0]
        return True

    def _left(self, k: int) -> tuple[Text, Tensor, Tensor]:
        """Return text ``k``, an orthonormal basis (D, m) of the others' gradients, and what these leave (D,)."""
        rest = [i for i in range(len(self.texts)) if i != k]
        basis: Tensor = torch.linalg.qr(self.features[rest].flatten(0, 1).T)[0]
        return self.texts[k], basis, self.backdrop.target - basis @ (basis.T @ self.backdrop.target)

    def _gains(self, texts: Sequence[Text], basis: Tensor, left: Tensor) -> Tensor:
        return explained(_outside(self.backdrop.of_words(texts), basis), left)

    def _moves(self, text: Text, basis: Tensor, left: Tensor, allowed: Tensor) -> list[tuple[int, int]]:
        """Return (slot, token) exchanges, those that promise most first."""
        body = self.backdrop.body
        slots = body.embed(torch.tensor([text])).clone().requires_grad_()
        share = explained(_outside(self.backdrop.features(slots, [len(text)]), basis), left).sum()
        (slope,) = torch.autograd.grad(share, slots)
        promise = slope[0] @ body.words[allowed].T - (slope * slots.detach())[0].sum(1, keepdim=True)
        top = promise.topk(min(_BEST, len(allowed)), dim=1)
        order = torch.argsort(-top.values.flatten(), stable=True).tolist()
        found = [divmod(i, top.values.shape[1]) for i in order]
        moves = [(slot, int(allowed[top.indices[slot, rank]])) for slot, rank in found]
        return [(slot, token) for slot, token in moves if text[slot] != token]


def _outside(features: Tensor, basis: Tensor) -> Tensor:
    return features - (features @ basis) @ basis.T


def _put(text: Text, moves: Sequence[tuple[int, int]]) -> Text:
    changed = list(text)
    for slot, token in moves:
        changed[slot] = token
    return changed


def other_orders(text: Text) -> list[Text]:
    """Return every order of ``text`` in which two words are swapped, or up to five in a row stand elsewhere."""
    found: dict[tuple[int, ...], None] = {}
    for i, j in combinations(range(len(text)), 2):
        swapped = list(text)
        swapped[i], swapped[j] = text[j], text[i]
        found[tuple(swapped)] = None
    for size in range(1, min(_SEGMENT, len(text) - 1) + 1):
        for start in range(len(text) - size + 1):
            segment, rest = text[start : start + size], text[:start] + text[start + size :]
            found |= dict.fromkeys(tuple(rest[:to] + segment + rest[to:]) for to in range(len(rest) + 1))
    found.pop(tuple(text), None)
    return [list(order) for order in found]
