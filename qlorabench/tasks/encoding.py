"""Tokenized texts, and batches of them padded to the longest of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """Tokenized examples."""

    ids: tuple[np.ndarray, ...]
    """Token ids of each text, special ones included, not padded."""
    labels: np.ndarray
    """Class indices, (rows,), int64."""
    lengths: np.ndarray
    """Number of tokens of each text, (rows,), int64."""
    pad: int
    """Token id that fills short texts up; masked everywhere."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Encoded:
        """Return the examples at ``rows``, in that order."""
        return Encoded(tuple(self.ids[i] for i in rows), self.labels[rows], self.lengths[rows], self.pad)


def encode(tokenizer: Any, texts: Sequence[str], labels: Sequence[int], *, max_length: int) -> Encoded:
    """Tokenize ``texts``, each cut to ``max_length`` tokens."""
    lists = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"] if texts else []
    ids = tuple(np.asarray(row, dtype=np.int64) for row in lists)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    lengths = np.asarray([len(row) for row in ids], dtype=np.int64)
    return Encoded(ids, np.asarray(labels, dtype=np.int64), lengths, int(pad))


def collate(data: Encoded, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both (rows, longest), int64."""
    import torch

    longest = int(data.lengths[rows].max())
    ids = np.full((len(rows), longest), data.pad, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : data.lengths[row]] = data.ids[row]
        mask[i, : data.lengths[row]] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
