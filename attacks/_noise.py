"""How much noise an element of an update carries: float32 rounding, the upload's codec, DP-SGD. All public."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from qlorabench.codecs import BlockCodec
from qlorabench.federation import wire
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.local import schedule_factor
from qlorabench.threats.view import Update

from ._dictionary import Floats

RELATIVE = 1e-6
"""Errors of a float32 backward pass, relative to the root mean square of what it computes."""


def rounding_variances(held: Tensor, change: Tensor, *, steps: int) -> Floats:
    """Return the variance in each row, (rows,), of ``steps`` roundings of a float32 factor that changes."""
    largest = np.maximum(np.abs(held.numpy()), np.abs((held + change).numpy()))
    gaps = np.spacing(largest.astype(np.float32)).astype(np.float64)
    variances: Floats = steps * (gaps**2).mean(1) / 12
    return variances


def codec_variances(update: Update, facts: PublicFacts) -> dict[str, Floats]:
    """Return by tensor the variance in each row, (rows,), of a quantized upload; empty where there is none.

    The exact bytes say in which cell each value lay. Rounded to nearest it is uniform there, a variance of
    cell^2 / 12; rounded stochastically it had a triangular law over two gaps, which gives cell^2 / 24.
    """
    defense = facts.defense("quantized-upload")
    if defense is None:
        return {}
    fields = ("codebook", "bits", "block_size", "rounding", "double_quantization")
    codec = BlockCodec(**{name: defense.config[name] for name in fields})
    layout = facts.travelling.only("A", "B")
    cells = codec.cells(wire.from_bytes(update.data), lengths=layout.lengths)
    share = 12 if codec.rounding == "nearest" else 24
    widths = [(cell.high.double() - cell.low.double()).numpy() for cell in cells]
    return {
        spec.name: (width.reshape(spec.shape) ** 2).mean(1) / share for spec, width in zip(layout, widths, strict=True)
    }


def privacy_variance(facts: PublicFacts, *, client: int, round: int) -> float:
    """Return the variance of an element of an update that DP-SGD adds over a round's local steps; 0 without.

    With momentum m, the noise of a step moves the factor by (1 - m^k) / (1 - m) of itself in k steps.
    """
    defense, training = facts.defense("dp-sgd"), facts.training
    if defense is None:
        return 0.0
    guarantee = defense.facts["clients"][client]
    factor = schedule_factor(training.optimizer, round=round, rounds=training.rounds)
    batch = guarantee["sample_rate"] * facts.client_rows[client]
    step = training.optimizer.lr * factor * guarantee["noise_multiplier"] * defense.config["clip_norm"] / batch
    left, momentum = np.arange(1, training.local_steps + 1), training.optimizer.momentum
    return float(step**2 * np.sum(((1 - momentum**left) / (1 - momentum)) ** 2))
