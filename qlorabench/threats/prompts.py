"""The extraction game: prompts of canaries as a seat gets them, and what the judge keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qlorabench.seeding import Seed
from qlorabench.tasks.canaries import Canary
from qlorabench.threats.view import SecretPrompt


@dataclass(frozen=True)
class ExtractionGame:
    """The prompts of one seat, and (secret) the canaries behind them, in the same order."""

    prompts: tuple[SecretPrompt, ...]
    canaries: tuple[Canary, ...]


def draw_prompts(canaries: Sequence[Canary], *, insiders: int, seed: Seed) -> ExtractionGame:
    """Return the game about ``canaries``, inserted and never inserted ones shuffled, the true secret among others.

    Canaries in the texts of the first ``insiders`` clients are left out: who sits there has read them.
    """
    asked = [canary for canary in canaries if canary.client is None or canary.client >= insiders]
    order = seed.child("order").numpy().permutation(len(asked))
    drawn = tuple(asked[i] for i in order)
    return ExtractionGame(tuple(_prompt(c, seed.child("references", i)) for i, c in enumerate(drawn)), drawn)


def _prompt(canary: Canary, seed: Seed) -> SecretPrompt:
    secrets: np.ndarray = seed.numpy().permutation(np.array([canary.secret, *canary.references]))
    length = sum(character.isdigit() for character in canary.secret)
    return SecretPrompt(canary.prompt, canary.alphabet, length, tuple(map(str, secrets)))
