"""How long every word at every position takes to be held against the space of one client, and how long naively.

    python -m benchmarks.scan

Ours never forms the inputs: energies of words, positions and their products (attacks/_subspace.py). The naive scan is
a loop over positions that forms LayerNorm(word + position) of the whole vocabulary and projects it, in float32.
Both run on one thread in one process, on MiniLM and a random space of 200 directions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qlorabench.attacks._dictionary import Dictionary, read_dictionary
from qlorabench.attacks._subspace import Space, pair_residuals
from qlorabench.suite.schema import BackboneConfig
from qlorabench.tasks.backbones import load_backbone

POSITIONS, RANK, REPEATS = 32, 200, 3


def naive_residuals(encoder: Any, basis: torch.Tensor, *, positions: int) -> torch.Tensor:
    """Return the residual of every (token, position), (V, M), one position after the other."""
    layer = encoder.embeddings
    columns = []
    with torch.inference_mode():
        for place in range(positions):
            offset = layer.position_embeddings.weight[place] + layer.token_type_embeddings.weight[0]
            inputs = layer.LayerNorm(layer.word_embeddings.weight + offset)
            outside = inputs - (inputs @ basis.T) @ basis
            columns.append(outside.norm(dim=1) / inputs.norm(dim=1))
    return torch.stack(columns, 1)


def seconds(work: Callable[[], object]) -> float:
    """Return the shortest of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def fresh(dictionary: Dictionary) -> Dictionary:
    """Return ``dictionary`` without what it has cached."""
    return dictionary.decoy(dictionary.order)


def main() -> None:
    """Time both and print the ratio."""
    torch.set_num_threads(1)
    encoder = load_backbone(BackboneConfig(name="minilm-l6"), base=Path()).model
    dictionary = read_dictionary(encoder, positions=POSITIONS)
    assert dictionary is not None
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(dictionary.words.shape[1], RANK)))[0].T
    space, single = Space(basis, RANK), torch.from_numpy(basis).float()
    worst = np.abs(pair_residuals(dictionary, space) - naive_residuals(encoder, single, positions=POSITIONS).numpy())
    ours = seconds(lambda: pair_residuals(fresh(dictionary), space))
    naive = seconds(lambda: naive_residuals(encoder, single, positions=POSITIONS))
    print(
        f"{dictionary.spread.shape[0]} words x {POSITIONS} positions, rank {RANK}, largest difference {worst.max():.1e}"
    )
    print(f"ours {ours:.2f} s, naive {naive:.2f} s, ratio {ours / naive:.3f}")


if __name__ == "__main__":
    main()
