"""Texts as mixtures of likely words, descended on.

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
from ._relaxed import Text

_NOISE = 0.7
"""Of the logits at the start."""
_COLD = 0.3
"""Temperature of the mixtures at the end, from 1 at the start."""
_COOLED = 0.7
"""Share of the steps after which it is reached."""
_ENTROPY = 0.02
"""Weight of the mixtures' entropy at the end."""
_FLAT = 1e-3
"""How likely any word is anywhere."""


@dataclass(frozen=True)
class Likely:
    """Words that the texts may be made of, and where."""

    tokens: Ints
    """(W,)"""
    powers: Floats
    """By slot, (W, S)."""
    blend: float = 0.02
    """How likely a word is where it has no power: by its power anywhere."""

    def prior(self) -> Tensor:
        """Return the logarithm of how likely each word is at each slot, (S, W)."""
        powers = torch.from_numpy(self.powers).float()
        at_slot = powers / powers.sum(0).clamp(min=1e-30)
        anywhere = powers.sum(1, keepdim=True) / powers.sum().clamp(min=1e-30)
        return torch.log(at_slot + self.blend * anywhere + _FLAT).T


def descend_mixtures(
    backdrop: Backdrop, likely: Likely, lengths: Sequence[Sequence[int]], *, steps: int, rate: float, rng: Generator
) -> list[list[Text]]:
    """Return the texts that a random start ends at for each of ``lengths``, (R, N), those of its texts.

    Every slot is a softmax over the likely words. Adam raises the share of the update that the texts' gradients span.
    """
    starts, every = len(lengths), [length for each in lengths for length in each]
    prior, words = likely.prior()[: max(every)], backdrop.body.embed(torch.from_numpy(likely.tokens))
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
