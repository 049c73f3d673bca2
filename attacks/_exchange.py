"""Texts of whole words that explain an update, bettered word by word, by length and by order.

Shapes: N texts of an update, S slots of a text, n candidates, V words, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from ._dictionary import Floats
from ._relaxed import Body, Text

Order = tuple[int, ...]
"""Places of words, in another order."""
_BEST = 3
"""Words of the steepest ascent that are looked at for each slot."""
_INSERTED = 4
"""The same where a word is put in."""
_LIKELY = 200
"""Words of a slot that a prior finds likely."""
_LEAST = 1e-5
"""An exchange must explain so much more of what is left."""
_WHOLE = 0.999
"""Share of an update beyond which texts are held to be the ones."""
_SEGMENT = 5
"""Most words that are moved together."""


class Place(Protocol):
    """The place of one text of an update beside the others, which stay as they are."""

    @property
    def text(self) -> Text:
        """The text that stands there."""

    @property
    def word_cost(self) -> float:
        """How much more a text must explain for each word that it has more than another."""

    def shares(self, texts: Sequence[Text]) -> Tensor:
        """Return how much is explained with each of ``texts`` there, (n,)."""

    def slopes(self, slots: Tensor) -> Tensor:
        """Return the gradient of the same by word embeddings ``slots`` (n, S, d) of n texts, (n, S, d)."""


class Fit(Protocol):
    """Texts that are held against an update."""

    @property
    def body(self) -> Body:
        """The backbone that reads them."""

    @property
    def texts(self) -> list[Text]:
        """The texts, N of them."""

    @property
    def share(self) -> float:
        """How much of the update they explain, 1 for all."""

    def place(self, k: int) -> Place:
        """Return the place of text ``k``."""

    def put(self, k: int, text: Text) -> None:
        """Replace text ``k``."""


class Prior(Protocol):
    """What is known of texts before any update."""

    def after(self, text: Text) -> Tensor:
        """Return how likely each word comes after the first i words of ``text``, (S + 1, V + 1), as logarithms.

        The last column is for the end of a text.
        """


@dataclass
class Exchange:
    """Texts of an update that change as long as more of it is explained."""

    fit: Fit
    longest: int
    """Most words of a text."""
    prior: Prior | None = None
    """Whose likeliest words and orders are looked at too."""

    @property
    def texts(self) -> list[Text]:
        """The texts as they are now."""
        return self.fit.texts

    @property
    def share(self) -> float:
        """Of the update, what the texts explain."""
        return self.fit.share

    @property
    def complete(self) -> bool:
        """Whether all of the update is explained."""
        return self.share > _WHOLE

    def run(self, words: Sequence[Tensor], *, tries: int, moves: int, rng: Generator) -> None:
        """Go over the texts once for each of ``words``, from which exchanges take theirs; pass where nothing helped.

        Of each text ``tries`` words are exchanged in every round. ``moves`` of its other orders are looked at in every
        second one and lengths in the others, and in any round what is left where nothing else helped that text.
        """
        stuck: list[Tensor] = []
        for number, allowed in enumerate(words):
            if self.complete or any(kind is allowed for kind in stuck):
                continue
            helped = [self._better(k, allowed, number % 2 == 0, tries, moves, rng) for k in range(len(self.texts))]
            stuck = [] if any(helped) else [*stuck, allowed]

    def _better(self, k: int, allowed: Tensor, order: bool, tries: int, moves: int, rng: Generator) -> bool:
        """Exchange words of text ``k``, then look at its ``order`` or else its length, and tell whether any helped."""

        def other(order: bool) -> bool:
            return self._reorder(k, moves, rng) if order else self._stretch(k, allowed, rng)

        exchanged = self._improve(k, allowed, tries)
        return other(order) or exchanged or other(not order)

    def _improve(self, k: int, allowed: Tensor, tries: int) -> bool:
        """Exchange words of text ``k`` where that explains more of what the other texts leave, and tell whether.

        Of the ``tries`` words that the gradient by the embeddings ranks first (HotFlip, Ebrahimi et al., ACL 2018)
        those that help are put in together as far as that helps.
        """
        place = self.fit.place(k)
        moves = self._moves(place, allowed)[:tries]
        if not moves:
            return False
        singles = [_put(place.text, [move]) for move in moves]
        shares = place.shares([place.text, *singles])
        gains = shares[1:] - shares[0]
        helpful: dict[int, tuple[int, int]] = {}
        for i in torch.argsort(-gains).tolist():
            if float(gains[i]) > _LEAST:
                helpful.setdefault(moves[i][0], moves[i])
        ranked = list(helpful.values())
        return self._best_of([_put(place.text, ranked[:count]) for count in range(1, len(ranked) + 1)], k, place)

    def _stretch(self, k: int, allowed: Tensor, rng: Generator) -> bool:
        """Take a word out of text ``k`` or put one in where that explains more, and tell whether."""
        place = self.fit.place(k)
        text = place.text
        shorter = [[*text[:i], *text[i + 1 :]] for i in range(len(text)) if len(text) > 1]
        longer = self._longer(place, allowed, rng) if len(text) < self.longest else []
        return self._best_of([*shorter, *longer], k, place)

    def _longer(self, place: Place, allowed: Tensor, rng: Generator) -> list[Text]:
        """Return the text with one word more: one of its own is put into each gap, and those on its steepest ascent.

        The mean embedding is no such word: on the way from it to any other the gradients bend.
        """
        body, text = self.fit.body, place.text
        gaps, own = range(len(text) + 1), text[int(rng.integers(len(text)))]
        slope = place.slopes(body.embed(torch.tensor([[*text[:i], own, *text[i:]] for i in gaps])))
        promise = slope[list(gaps), list(gaps)] @ body.words[allowed].T
        return [[*text[:i], token, *text[i:]] for i, token in self._ranked(text, promise, allowed, _INSERTED)] + [
            [*text[:i], own, *text[i:]] for i in gaps
        ]

    def _reorder(self, k: int, moves: int, rng: Generator) -> bool:
        """Put the words of text ``k`` in the best of ``moves`` other orders if it explains more, and tell whether.

        Half of them are those that the prior finds most likely, where there is one, the others are drawn.
        """
        place = self.fit.place(k)
        orders = other_orders(place.text)
        some = rng.permutation(len(orders))[:moves]
        if self.prior is not None:
            likely = order_scores(self.prior.after(place.text)[:, [*place.text, -1]], orders)
            some = np.concatenate([np.argsort(-likely, kind="stable")[: moves // 2], some[: moves - moves // 2]])
        return self._best_of([[place.text[j] for j in orders[i]] for i in dict.fromkeys(some.tolist())], k, place)

    def _best_of(self, others: Sequence[Text], k: int, place: Place) -> bool:
        """Replace text ``k`` by the best of ``others`` if that explains more, and tell whether."""
        if not others:
            return False
        shares = place.shares([place.text, *others])
        longer = torch.tensor([len(other) - len(place.text) for other in others])
        gains = shares[1:] - shares[0] - place.word_cost * longer
        best = int(gains.argmax())
        if float(gains[best]) <= _LEAST:
            return False
        self.fit.put(k, list(others[best]))
        return True

    def _moves(self, place: Place, allowed: Tensor) -> list[tuple[int, int]]:
        """Return (slot, token) exchanges, those that promise most first."""
        body, text = self.fit.body, place.text
        slots = body.embed(torch.tensor([text]))
        slope = place.slopes(slots)[0]
        promise = slope @ body.words[allowed].T - (slope * slots[0]).sum(1, keepdim=True)
        moves = self._ranked(text, promise, allowed, _BEST)
        return [(slot, token) for slot, token in moves if text[slot] != token]

    def _ranked(self, text: Text, promise: Tensor, allowed: Tensor, most: int) -> list[tuple[int, int]]:
        """Return (slot, token) by ``promise`` (slots, allowed), the best first, ``most`` for each slot.

        Where there is a prior, every other one is the best among the words that it finds likely there.
        """
        ranks = [_best(promise, allowed, most)]
        if self.prior is not None:
            likely = self.prior.after(text)[: len(promise), allowed]
            unlikely = likely < likely.topk(min(_LIKELY, len(allowed)), dim=1).values[:, -1:]
            ranks.append(_best(promise.masked_fill(unlikely, -torch.inf), allowed, most))
        return list(dict.fromkeys(move for moves in zip(*ranks, strict=True) for move in moves))


def _best(promise: Tensor, allowed: Tensor, most: int) -> list[tuple[int, int]]:
    top = promise.topk(min(most, len(allowed)), dim=1)
    order = torch.argsort(-top.values.flatten(), stable=True).tolist()
    found = [divmod(i, top.values.shape[1]) for i in order]
    return [(slot, int(allowed[top.indices[slot, rank]])) for slot, rank in found]


def _put(text: Text, moves: Sequence[tuple[int, int]]) -> Text:
    changed = list(text)
    for slot, token in moves:
        changed[slot] = token
    return changed


def other_orders(text: Text) -> list[Order]:
    """Return every order of ``text`` in which two words are swapped, or up to five in a row stand elsewhere.

    As places in ``text``, one order for each that reads differently.
    """
    found: dict[Order, Order] = {tuple(text): ()}

    def add(order: list[int]) -> None:
        found.setdefault(tuple(text[i] for i in order), tuple(order))

    places = list(range(len(text)))
    for i, j in combinations(places, 2):
        swapped = list(places)
        swapped[i], swapped[j] = j, i
        add(swapped)
    for size in range(1, min(_SEGMENT, len(text) - 1) + 1):
        for start in range(len(text) - size + 1):
            segment, rest = places[start : start + size], places[:start] + places[start + size :]
            for to in range(len(rest) + 1):
                add(rest[:to] + segment + rest[to:])
    return [order for order in found.values() if order]


def order_scores(after: Tensor, orders: Sequence[Order]) -> Floats:
    """Return the logarithm of how likely each of ``orders`` is, (n,), by what comes ``after`` what (S + 1, S + 1)."""
    places = np.array(orders, np.int64).reshape(len(orders), after.shape[0] - 1)
    ends = np.full((len(places), 1), after.shape[0] - 1)
    before, behind = np.hstack([np.zeros_like(ends), places + 1]), np.hstack([places, ends])
    scores: Floats = after.double().numpy()[before, behind].sum(1)
    return scores
