"""Tokenized texts, and batches of them padded to the longest of the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlorabench.errors import UserError
from qlorabench.hashing import digest

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
    return _encoded(tokenizer, lists, labels)


def encode_causal(tokenizer: Any, texts: Sequence[str], labels: Sequence[int], *, max_length: int) -> Encoded:
    """Tokenize ``texts`` for a causal model: its first token (where it has one), the text, and an end token.

    At most ``max_length`` tokens are kept with both, so that every token of a text is an input whose successor the
    loss asks for. Raises UserError where the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the backbone's tokenizer has no end token (eos); a language model needs one to end a text")
    start = start_ids(tokenizer)
    room = max_length - len(start) - 1
    lists = [start + ids[:room] + [tokenizer.eos_token_id] for ids in encode_texts(tokenizer, texts)]
    return _encoded(tokenizer, lists, labels)


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text as it stands: nothing cut, no special token added."""
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def start_ids(tokenizer: Any) -> list[int]:
    """Return what a text starts with for a causal model: its first special token, or nothing."""
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]


def concatenate(first: Encoded, second: Encoded) -> Encoded:
    """Return the rows of both, in that order."""
    labels, lengths = (
        np.concatenate(pair) for pair in ((first.labels, second.labels), (first.lengths, second.lengths))
    )
    return Encoded(first.ids + second.ids, labels, lengths, first.pad)


def _encoded(tokenizer: Any, lists: Sequence[Sequence[int]], labels: Sequence[int]) -> Encoded:
    ids = tuple(np.asarray(row, dtype=np.int64) for row in lists)
    lengths = np.asarray([len(row) for row in ids], dtype=np.int64)
    return Encoded(ids, np.asarray(labels, dtype=np.int64), lengths, _padding(tokenizer))


def _padding(tokenizer: Any) -> int:
    """Return the id that fills texts up; any will do where the tokenizer names none, since the mask hides it."""
    named = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(id) for id in named if id is not None)


def cut_rows(encoded: Encoded, longer: Callable[[np.ndarray], Encoded], *, max_length: int) -> np.ndarray:
    """Return which texts were cut to ``max_length`` tokens, boolean, (rows,).

    A text was cut if one more token is kept of it where there is room for one more; ``longer`` tokenizes the given
    rows with that room, and is asked for those alone that fill theirs.
    """
    cut = np.zeros(len(encoded), dtype=bool)
    full = np.flatnonzero(encoded.lengths >= max_length)
    if len(full):
        cut[full] = longer(full).lengths > encoded.lengths[full]
    return cut


def known_tokens(tokenizer: Any, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Return how many tokens of its own each text has, and how many of them are not [UNK]; both (rows,), int64.

    Special tokens around a text are not its own. A tokenizer that uses its end token for what it does not know
    (GPT-2's) splits any text into bytes, and knows every one.
    """
    unknown = tokenizer.unk_token_id
    around = {i for name, i in _special_ids(tokenizer).items() if name != "unk_token"}
    ids = np.concatenate(encoded.ids) if len(encoded) else np.empty(0, dtype=np.int64)
    row = np.repeat(np.arange(len(encoded)), encoded.lengths)
    own = ~np.isin(ids, list(around))
    known = own if unknown is None else own & (ids != unknown)
    rows = len(encoded)
    return np.bincount(row[own], minlength=rows), np.bincount(row[known], minlength=rows)


def encoding_sha256(tokenizer: Any, encoded: Encoded) -> str:
    """Return a hash of the token ids of every text and of what the tokenizer reads into an id, 64 hex digits.

    The tokenizer's own file is no part of it: how the library writes it changes from release to release.
    """
    ids = [hashlib.sha256(row.astype("<i8").tobytes()).hexdigest() for row in encoded.ids]
    tokens = hashlib.sha256()
    for token, i in sorted(tokenizer.get_vocab().items()):
        tokens.update(f"{i} {len(token)} {token}".encode("utf-8", "surrogatepass"))  # CANINE's tokens are code points
    return digest([ids, encoded.pad, tokens.hexdigest(), _special_ids(tokenizer)], length=64)


def _special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the ids of the special tokens that have a role, by its name."""
    roles = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    ids = {role: getattr(tokenizer, f"{role}_id") for role in roles}
    return {role: int(i) for role, i in ids.items() if i is not None}


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
