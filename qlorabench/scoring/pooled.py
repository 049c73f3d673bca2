"""Reconstruction over all clients: the client is the unit, where there are enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qlorabench.scoring.text import mean_defined, reconstruction_scores
from qlorabench.threats.claims import ClientTexts

ENOUGH = 8
"""Clients below which a mean over clients says too little to be shown."""
Texts = tuple[Sequence[set[int]], Sequence[str]]
"""Texts of one client: the set of tokens of each, and the texts."""
METRICS = ("token_recall", "rouge1", "rouge2", "exact")


@dataclass(frozen=True)
class ClientMeans:
    """Mean of one metric over the texts of each client and of its held-out control, (clients,) each.

    NaN where none of the texts defines it: a client that drew nothing, or that wrote no word.
    """

    metric: str
    hit: np.ndarray
    miss: np.ndarray


def client_means(
    said: Mapping[int, ClientTexts],
    truths: Sequence[Texts],
    controls: Sequence[Sequence[Texts]],
) -> list[ClientMeans]:
    """Return the means of every metric; a client of whom nothing is claimed counts 0.

    ``controls`` has for each client some lots of held-out texts, over which its control is the mean.
    """
    claims = [said.get(i, ClientTexts(i)) for i in range(len(truths))]
    hits = [_means(claim, *truth) for claim, truth in zip(claims, truths, strict=True)]
    misses = [[_means(claim, *lot) for lot in lots] for claim, lots in zip(claims, controls, strict=True)]
    return [
        ClientMeans(
            metric,
            np.array([hit[metric] for hit in hits]),
            np.array([_mean(np.array([miss[metric] for miss in lots])) for lots in misses]),
        )
        for metric in METRICS
    ]


def _means(said: ClientTexts, tokens: Sequence[set[int]], texts: Sequence[str]) -> dict[str, float]:
    recalls = np.array([len(own & said.tokens) / len(own) for own in tokens if own])
    scores = reconstruction_scores(texts, said.texts)
    return {"token_recall": _mean(recalls)} | {metric: _mean(getattr(scores, metric)) for metric in METRICS[1:]}


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are defined; NaN where none is."""
    return mean if (mean := mean_defined(values).value) is not None else float("nan")
