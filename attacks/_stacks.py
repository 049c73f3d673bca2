"""What one client answered to factors A of the server's choosing, and its answers side by side.

Shapes: r rank, d width, d_out rows of B, k answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.local import schedule_factor
from qlorabench.threats.view import Exchange

from ._dictionary import Dictionary, Floats, Ints
from ._evidence import Lens
from ._noise import RELATIVE, codec_variances, privacy_variance, rounding_variances
from ._observed import KEYS
from ._subspace import pair_residuals, row_space, widened

APART = 10.0
"""A word at a wrong position shares most of its vector: a position must leave less than ten times the residual of the
word's best one, and less than a tenth of the median one."""
SAME = 3.0
"""Answers to one factor that come from one batch are 1 apart, in units of the noise of their difference."""


@dataclass(frozen=True)
class Shot:
    """One module's part of one exchange; or of several, side by side."""

    factor: Floats
    """The A that the client held, times the factor on its learning rate: (r, d)."""
    change: Floats
    """What its training made of B, (d_out, r): D^T X factor^T for some D of the round."""
    variances: Floats
    """Noise of an element in each row of ``change``, (d_out,)."""


def shots(facts: PublicFacts, exchange: Exchange, modules: Sequence[str]) -> dict[str, Shot]:
    """Return the shots of an answered ``exchange`` by module."""
    held, update = exchange.broadcast.state, exchange.update
    assert update is not None
    coded = codec_variances(update, facts)
    private = privacy_variance(facts, client=update.client, round=update.round)
    rate = schedule_factor(facts.training.optimizer, round=update.round, rounds=facts.training.rounds)
    found = {}
    for module in modules:
        change = update.state[f"{module}.B"]
        rounding = rounding_variances(held[f"{module}.B"], change, steps=facts.training.local_steps)
        values = change.double().numpy()
        training = float((rounding + RELATIVE**2 * (values**2).mean(1)).mean())  # as `_observed` has it of B
        variances = np.zeros(len(values)) + training + private + coded.get(f"{module}.B", 0.0)
        found[module] = Shot(rate * held[f"{module}.A"].double().numpy(), values, variances)
    return found


def difference(left: Shot, right: Shot) -> float:
    """Return how far two answers to one factor are apart, in units of their noise; infinite for two factors."""
    ratio = np.linalg.norm(left.factor) / np.linalg.norm(right.factor)  # the learning rate may have moved
    if not np.allclose(left.factor, ratio * right.factor, rtol=1e-6, atol=0):
        return float("inf")
    gap = left.change - ratio * right.change
    return float(np.sqrt((gap**2).mean() / (left.variances + ratio**2 * right.variances).mean()))


def stack(answers: Sequence[Shot]) -> Shot:
    """Return ``answers`` side by side: D^T X [A_1; ...; A_k]^T, every block in units of its own noise.

    A row keeps one scale over all blocks, or else the rows would leave the span of the inputs.
    """
    levels = [float(np.sqrt(shot.variances.mean())) for shot in answers]
    return Shot(
        np.vstack([shot.factor / level for shot, level in zip(answers, levels, strict=True)]),
        np.hstack([shot.change / level for shot, level in zip(answers, levels, strict=True)]),
        np.mean([shot.variances / level**2 for shot, level in zip(answers, levels, strict=True)], axis=0),
    )


def lenses(answer: Mapping[str, Shot], *, dictionary: Dictionary, decoy: Dictionary, first: int | None) -> list[Lens]:
    """Return the dictionary behind the factor of every module, with the space of the module's answer.

    Softmax takes one direction from the rows of keys, which the input of the opening token ``first`` gives back.
    """
    found = []
    for module, shot in answer.items():
        behind = dictionary.through(shot.factor)
        space = row_space(shot.change / np.sqrt(shot.variances)[:, None])
        if module.rpartition(".")[2] in KEYS and 0 < space.rank < space.width:
            if first is None:
                continue
            space = widened(space, behind.inputs(np.array([first]), np.array([0])))
        found.append(Lens(behind, decoy.through(shot.factor), space))
    return found


def placed(pairs: Ints, found: Sequence[Lens]) -> Ints:
    """Return those of ``pairs``, (n, 2) of (token, position), where the lenses see the word best by far."""
    tokens = np.unique(pairs[:, 0])
    live = [lens for lens in found if 0 < lens.space.rank < lens.space.width]
    residuals = np.mean([np.log(pair_residuals(lens.dictionary.only(tokens), lens.space)) for lens in live], axis=0)
    best, typical = residuals.min(1, keepdims=True), np.median(residuals, axis=1, keepdims=True)
    clear = (residuals <= best + np.log(APART)) & (residuals <= typical - np.log(APART))
    kept: Ints = pairs[clear[np.searchsorted(tokens, pairs[:, 0]), pairs[:, 1]]]
    return kept
