"""What a model is good for: the accuracy of a classifier, the perplexity of a language model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from qlorabench.scoring.intervals import bootstrap, clopper_pearson
from qlorabench.scoring.score import Score, from_interval

PERPLEXITY = "perplexity"
"""How metrics start in which less is better."""


def accuracy(metric: str, correct: np.ndarray) -> Score:
    """Return the share of rows that were told rightly, with its exact interval; ``correct`` is (rows,) of 0 and 1."""
    return from_interval(metric, clopper_pearson(int(correct.sum()), len(correct)))


def perplexity(metric: str, losses: Sequence[np.ndarray], *, rng: np.random.Generator) -> Score:
    """Return exp of the mean loss over all tokens of all texts, with a bootstrap interval over texts.

    ``losses`` holds for each text the loss in nats of each predicted token. Long texts count more than short ones, as
    is usual; texts are resampled whole, since the tokens of a text go together.
    """
    units = np.array([(own.sum(), len(own)) for own in losses], dtype=float).reshape(-1, 2)
    return from_interval(metric, bootstrap(units, _perplexity, rng=rng))


def _perplexity(units: np.ndarray) -> float:
    """``units``: (texts, 2) of the sum of losses and the number of tokens."""
    total, tokens = units.sum(0)
    return math.exp(total / tokens) if tokens and total / tokens < 700 else math.nan


def gain(metric: str, gains: np.ndarray, *, rng: np.random.Generator) -> Score:
    """Return the mean of ``gains``, (rows,), by how much a system is better on each row than what needs no training.

    Its interval is paired: rows that are hard for both cancel, as they do not between two separate intervals.
    """
    return from_interval(metric, bootstrap(gains, lambda rows: float(rows.mean()), rng=rng))


def learned(gains: Iterable[Score]) -> bool:
    """Tell whether a system beats all that needs no training: every gain's interval lies above zero."""
    return all(score.low is not None and score.low > 0 for score in gains)
