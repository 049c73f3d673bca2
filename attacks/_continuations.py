"""What a language model says of the digits after a prompt: many strings of digits in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlorabench.tasks.encoding import encode_texts, start_ids
from qlorabench.threats.view import SecretPrompt

Symbols = tuple[int, ...]
"""A string of digits by their numbers in the alphabet; the empty one is the prompt alone."""
Continuations = Callable[[Any, "Context", Sequence[Symbols]], np.ndarray]
"""Maps an `AdapterModel`, a context and strings to log-probabilities of the next symbol, (strings, alphabet)."""
ROWS = 16
"""Texts of one forward pass without a tree."""
TOLERANCE = 1e-3
"""Nats by which a tree may differ from a plain forward pass: far above rounding, far below what a prompt changes."""


@dataclass(frozen=True)
class Context:
    """A prompt in tokens."""

    ids: tuple[int, ...]
    """Tokens of the prompt, with what a text starts with."""
    symbols: tuple[int, ...]
    """Token of each symbol of the alphabet."""

    @classmethod
    def of(cls, tokenizer: Any, prompt: SecretPrompt) -> Context:
        """Return the tokens of ``prompt``."""
        texts = [prompt.prompt, *(prompt.prompt + symbol for symbol in prompt.alphabet)]
        ids, *longer = encode_texts(tokenizer, texts)
        return cls((*start_ids(tokenizer), *ids), tuple(row[-1] for row in longer))


def continuations_for(model: Any, context: Context) -> Continuations:
    """Return `by_tree` where the mounted ``model`` computes the same so, else `by_rows`.

    Attention under a mask of one's own is not supported by every architecture, and some ignore it in silence.
    """
    probe: list[Symbols] = [(), (0,), (1,), (1, 0)]
    try:
        found = by_tree(model, context, probe)
    except (TypeError, ValueError, RuntimeError):
        return by_rows
    same = np.allclose(found, by_rows(model, context, probe), rtol=0.0, atol=TOLERANCE)
    return by_tree if same else by_rows


def by_rows(model: Any, context: Context, strings: Sequence[Symbols]) -> np.ndarray:
    """Return log-probabilities by a forward pass over every string, one text each."""
    found = []
    for start in range(0, len(strings), ROWS):
        rows = [[*context.ids, *(context.symbols[s] for s in string)] for string in strings[start : start + ROWS]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            logits = model(ids, mask)
        last = torch.tensor([len(row) - 1 for row in rows])
        found.append(_log_probabilities(logits[torch.arange(len(rows)), last], context))
    return np.concatenate(found)


def by_tree(model: Any, context: Context, strings: Sequence[Symbols]) -> np.ndarray:
    """Return log-probabilities by one forward pass over the tree of all prefixes.

    The prompt and every distinct prefix stand in one text; a mask lets a symbol attend to the prompt and to its own
    ancestors, and its position is that which it has in its string. 200 strings of four digits are some 280 tokens so,
    where as texts of their own they would be 200 times the prompt's and theirs.
    """
    nodes = sorted({s[:end] for s in strings for end in range(1, len(s) + 1)}, key=lambda node: (len(node), node))
    place = {node: len(context.ids) + i for i, node in enumerate(nodes)} | {(): len(context.ids) - 1}
    tokens = torch.tensor([[*context.ids, *(context.symbols[node[-1]] for node in nodes)]])
    positions = torch.tensor([[*range(len(context.ids)), *(len(context.ids) - 1 + len(node) for node in nodes)]])
    with torch.inference_mode():
        output = model.encoder(
            input_ids=tokens, attention_mask=_mask(context, nodes, place), position_ids=positions, use_cache=False
        )
    return _log_probabilities(output.logits[0, torch.tensor([place[s] for s in strings])], context)


def _mask(context: Context, nodes: Sequence[Symbols], place: dict[Symbols, int]) -> Tensor:
    """Return the additive mask (1, 1, tokens, tokens) of a tree behind its prompt."""
    start = len(context.ids)
    seen = torch.zeros(start + len(nodes), start + len(nodes), dtype=torch.bool)
    seen[:, :start] = True
    seen[:start, :start] = torch.ones(start, start, dtype=torch.bool).tril()
    for node in nodes:
        seen[place[node], [place[node[:end]] for end in range(1, len(node) + 1)]] = True
    mask = torch.zeros(seen.shape)
    return mask.masked_fill(~seen, torch.finfo(mask.dtype).min)[None, None]


def _log_probabilities(logits: Tensor, context: Context) -> np.ndarray:
    """Return log-probabilities among the alphabet, (rows, alphabet), of ``logits`` (rows, vocabulary).

    That a symbol of the alphabet follows is known: what a model gives to other tokens is left out.
    """
    chosen = logits[:, list(context.symbols)].double()
    found: np.ndarray = torch.log_softmax(chosen, dim=-1).numpy()
    return found
