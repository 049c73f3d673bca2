"""What a public causal language model finds likely, before any update is looked at.

Shapes: S words of a text, V words of the vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from qlorabench.suite.schema import BackboneConfig
from qlorabench.tasks.backbones import SMOLLM2, load_backbone
from qlorabench.tasks.encoding import encode_texts, start_ids

from ._relaxed import Text

LanguageModel = Annotated[
    str | None,
    Field(description="causal language model whose likeliest words and orders are looked at too; null for none"),
]
"""A backbone by name, in an attack's configuration."""
SMALL: LanguageModel = SMOLLM2
_CONTINUES = "##"
"""Marks a WordPiece that goes on with a word."""
_KEPT = 8
"""Texts whose next words are kept."""
_END = "\n"
"""What follows a text."""


@dataclass(frozen=True)
class CausalPrior:
    """A causal language model that reads the words of another tokenizer (a `Prior`)."""

    model: Any
    tokenizer: Any
    words: Sequence[str]
    """What each word of the backbone under attack adds to a line, V of them."""
    _known: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    def after(self, text: Text) -> Tensor:
        """Return how likely each word comes after the first i words of ``text``, (S + 1, V + 1), as logarithms.

        The last column is for the end of a text. Words that the model splits share the chance of their first part.
        A search asks for the same few texts again and again: the last ones are kept.
        """
        key = tuple(text)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = self._after(text)
        return self._known[key]

    def _after(self, text: Text) -> Tensor:
        start = self._start
        rows = [self._ids[word] for word in text]
        line = torch.tensor([[*start, *(token for row in rows for token in row)]])
        ends = torch.tensor([len(start), *map(len, rows)]).cumsum(0) - 1
        with torch.inference_mode():
            logits = self.model(input_ids=line).logits[0, ends]
        return torch.log_softmax(logits.float(), dim=-1)[:, self._first] - self._split

    @property
    def _start(self) -> list[int]:
        return start_ids(self.tokenizer) or [0]

    @functools.cached_property
    def _ids(self) -> list[list[int]]:
        """Tokens of each word, and of what follows a text."""
        return [ids or self._start for ids in encode_texts(self.tokenizer, [*self.words, _END])]

    @functools.cached_property
    def _first(self) -> Tensor:
        return torch.tensor([ids[0] for ids in self._ids])

    @functools.cached_property
    def _split(self) -> Tensor:
        """Logarithm of how many split words begin with the same token, 0 for whole ones, (V + 1,)."""
        several = torch.tensor([len(ids) > 1 for ids in self._ids])
        counts = torch.bincount(self._first[several], minlength=int(self._first.max()) + 1)[self._first]
        return torch.where(several, counts.clamp(min=1).float().log(), torch.zeros(()))


def causal_prior(name: str | None, tokenizer: Any) -> CausalPrior | None:
    """Return the prior of the language model ``name`` for texts of ``tokenizer``; none without a name.

    Raises UserError where there is no such model.
    """
    return None if name is None else _causal(name, tuple(spelled(tokenizer, range(len(tokenizer)))))


@functools.lru_cache(maxsize=1)
def _causal(name: str, words: tuple[str, ...]) -> CausalPrior:
    backbone = load_backbone(BackboneConfig(name=name), base=Path(), objective="language-modeling")
    return CausalPrior(backbone.model, backbone.tokenizer, words)


def spelled(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return what each of the tokens ``ids`` adds to a line: spaces stand before words, not before marks."""
    return [_added(str(name)) for name in tokenizer.convert_ids_to_tokens(list(ids))]


def _added(name: str) -> str:
    if name.startswith(_CONTINUES):
        return name[len(_CONTINUES) :]
    return f" {name}" if any(map(str.isalnum, name)) else name
