"""Texts as mixtures of likely words, descended on, and then as words, exchanged one by one.

Shapes: R starts, N texts of an update, S slots of a text, W words, d width, C classes, D elements of the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

from ._backdrop import Backdrop, explained
from ._dictionary import Floats, Ints

_NOISE = 0.7
"""Of the logits at the start."""
_COLD = 0.3
"""Temperature of the mixtures at the end, from 1 at the start."""
_COOLED = 0.7
"""Share of the steps after which it is reached."""
_ENTROPY = 0.02
"""Weight of the mixtures' entropy at the end."""
_BLEND, _FLAT = 0.02, 1e-3
"""How likely a word is where the heads do not place it: by its power anywhere, and any word."""
_BEST = 3
"""Words of the steepest ascent that are looked at for each slot."""
_LEAST = 1e-5
"""An exchange must explain so much more of what is left."""

Text = list[int]


@dataclass(frozen=True)
class Likely:
    """Words that the texts may be made of, and where."""

    tokens: Ints
    """(W,)"""
    powers: Floats
    """By slot, (W, S)."""

    def prior(self) -> Tensor:
        """Return the logarithm of how likely each word is at each slot, (S, W)."""
        powers = torch.from_numpy(self.powers).float()
        at_slot = powers / powers.sum(0).clamp(min=1e-30)
        anywhere = powers.sum(1, keepdim=True) / powers.sum().clamp(min=1e-30)
        return torch.log(at_slot + _BLEND * anywhere + _FLAT).T


def descend_mixtures(
    backdrop: Backdrop, likely: Likely, lengths: Sequence[Sequence[int]], *, steps: int, rate: float, rng: Generator
) -> list[list[Text]]:
    """Return the texts that a random start ends at for each of ``lengths``, (R, N), those of its texts.

    Every slot is a softmax over the likely words. Adam raises the share of the update that the texts' gradients span.
    """
    prior, words = likely.prior(), backdrop.body.embed(torch.from_numpy(likely.tokens))
    starts, every = len(lengths), [length for each in lengths for length in each]
    noise = torch.from_numpy(rng.normal(size=(starts, len(lengths[0]), *prior.shape))).float()
    free = (prior + _NOISE * noise).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=rate)
    for step in range(steps):
        progress = step / steps
        warmth = max(_COLD, 1 - (1 - _COLD) * progress / _COOLED)
        shares = torch.softmax(free / warmth, dim=-1)
        features = backdrop.features((shares @ words).flatten(0, 1), every)
        left = 1 - explained(features.reshape(starts, -1, features.shape[-1]), backdrop.target)
        entropy = -(shares * torch.log(shares + 1e-9)).sum(-1).mean((1, 2))
        loss = (left + _ENTROPY * min(1.0, 2 * progress) * entropy).sum()
        (free.grad,) = torch.autograd.grad(loss, free)
        optimizer.step()
    ids = likely.tokens[free.detach().argmax(-1).numpy()]
    return [
        [row[:n].tolist() for row, n in zip(rows, each, strict=True)] for rows, each in zip(ids, lengths, strict=True)
    ]


@dataclass
class Exchange:
    """Texts of an update under exchanges of single words."""

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

    def run(self, words: Sequence[Tensor], *, tries: int) -> None:
        """Go over the texts once for each of ``words``, from which exchanges take theirs; end where nothing helps."""
        moved = True
        for number, allowed in enumerate(words):
            if not moved and words[number - 1] is allowed:
                continue
            helped = [self._improve(k, allowed, tries) for k in range(len(self.texts))]
            stretched = [self._stretch(k, allowed) for k in range(len(self.texts))]
            moved = any(helped + stretched)

    def _improve(self, k: int, allowed: Tensor, tries: int) -> bool:
        """Exchange words of text ``k`` where that explains more of what the other texts leave, and tell whether.

        Of the ``tries`` words that the gradient by the embeddings ranks first (HotFlip, Ebrahimi et al., ACL 2018)
        those that help are put in together as far as that helps.
        """
        text, basis = self.texts[k], self._others(k)
        left = self.backdrop.target - basis @ (basis.T @ self.backdrop.target)
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
        best = joint[int(self._gains(joint, basis, left).argmax())]
        self.texts[k], self.features[k] = best, self.backdrop.of_words([best])[0]
        return True

    def _stretch(self, k: int, allowed: Tensor) -> bool:
        """Take a word out of text ``k`` or put one in where that explains more, and tell whether."""
        text, basis = self.texts[k], self._others(k)
        left = self.backdrop.target - basis @ (basis.T @ self.backdrop.target)
        before = float(explained(_outside(self.features[k], basis), left))
        fitting: dict[int, int] = {}
        for slot, token in self._moves(text, basis, left, allowed):
            fitting.setdefault(slot, token)
        shorter = [[*text[:i], *text[i + 1 :]] for i in range(len(text)) if len(text) > 1]
        longer = [[*text[:i], token, *text[i:]] for i, token in fitting.items() if len(text) < self.longest]
        others = [*shorter, *longer]
        if not others:
            return False
        gains = self._gains(others, basis, left) - before
        best = int(gains.argmax())
        if float(gains[best]) <= _LEAST:
            return False
        self.texts[k] = others[best]
        self.features[k] = self.backdrop.of_words([self.texts[k]])[0]
        return True

    def _others(self, k: int) -> Tensor:
        """Return an orthonormal basis (D, m) of the gradients of all texts but ``k``."""
        rest = [i for i in range(len(self.texts)) if i != k]
        basis: Tensor = torch.linalg.qr(self.features[rest].flatten(0, 1).T)[0]
        return basis

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
