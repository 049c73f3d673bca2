"""The adversary's own bench: the public backbone, to compute with whatever it likes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlorabench.federation.losses import example_losses, next_token_losses
from qlorabench.federation.model import AdapterModel
from qlorabench.federation.state import State
from qlorabench.tasks.encoding import Encoded, collate
from qlorabench.threats.queries import Queries

BATCH = 64
"""Rows of one forward pass of a classifier in evaluation."""
TEXTS = 8
"""Rows of one forward pass of a language model, whose logits are as wide as its vocabulary."""


class NotFiniteError(RuntimeError):
    """The model gives numbers under an adapter that are infinite or NaN; nothing can be told from them."""


@dataclass(frozen=True)
class Lab:
    """The public model under adapters of the system's shape, its tokenizer, and its public start."""

    model: AdapterModel
    tokenizer: Any
    start: Mapping[str, Tensor]
    """Public start of every tensor; what never travels stays so."""
    memo: dict[str, bytes] = field(default_factory=dict)
    """Logits or token losses, so that no pair of adapter and data is computed twice. Name and cipher come from the
    content of the pair: only who holds both can read an entry, though seats share the memo."""
    queries: Queries = field(default_factory=Queries)
    """What was asked of the model; the harness's count."""

    def mount(self, state: Mapping[str, Tensor]) -> AdapterModel:
        """Return the model with ``state`` over the public start."""
        self.model.load({**self.start, **state})
        return self.model

    def logits(self, state: Mapping[str, Tensor], data: Encoded) -> np.ndarray:
        """Return a classifier's logits of shape (rows, classes) for ``data`` under the adapter ``state``.

        Raises NotFiniteError where they are not all finite, as `token_losses` and `losses` do: no number follows then.
        """
        if self.model.objective != "classification":
            raise TypeError("a language model's logits are too many to keep: mount(state) and call model(ids, mask)")
        return self._remembered(self._logits, state, data).reshape(len(data), -1)

    def token_losses(self, state: Mapping[str, Tensor], data: Encoded) -> tuple[np.ndarray, ...]:
        """Return for each text of ``data`` the loss in nats of each predicted token, (tokens - 1,), under ``state``.

        For language models. The first token of a text is not predicted, the last one (its end) is.
        """
        if self.model.objective != "language-modeling":
            raise TypeError("a classifier predicts no tokens: ask for losses")
        flat = self._remembered(self._token_losses, state, data)
        return tuple(np.split(flat, np.cumsum(data.lengths - 1)[:-1]))

    def losses(self, state: Mapping[str, Tensor], data: Encoded) -> np.ndarray:
        """Return the loss of each row of ``data``, (rows,), in nats, under the adapter ``state``.

        A classifier's is the cross entropy of the label, a language model's the mean over predicted tokens.
        """
        if self.model.objective == "language-modeling":
            return np.array([tokens.mean() if len(tokens) else 0.0 for tokens in self.token_losses(state, data)])
        logits = torch.from_numpy(self.logits(state, data))
        nothing = torch.empty(0)
        return example_losses("classification", logits, nothing, nothing, data.labels).numpy()

    def _remembered(
        self, compute: Callable[[State, Encoded], np.ndarray], state: Mapping[str, Tensor], data: Encoded
    ) -> np.ndarray:
        """Return ``compute(state, data)``, flat float64, from the memo where it holds it."""
        question = b"texts/" + b"/".join(ids.tobytes() for ids in data.ids)
        return self.recall(state, question, lambda full: compute(full, data), rows=len(data))

    def recall(
        self, state: Mapping[str, Tensor], question: bytes, compute: Callable[[State], np.ndarray], *, rows: int
    ) -> np.ndarray:
        """Return ``compute(full state)``, flat float64, from the memo where the same was asked before.

        ``question`` names all that the numbers depend on but the adapter, and ``rows`` counts the rows that computing
        them sends through the model. Raises NotFiniteError where one of the numbers is not finite.
        """
        full = {**self.start, **state}
        content = _content(full, question, self.model.scaling)
        name = hashlib.sha256(b"name" + content).hexdigest()
        if name in self.memo:
            self.queries.rows += rows
        else:
            self.memo[name] = _cipher(_finite(compute(full), full).tobytes(), content)
        return np.frombuffer(_cipher(self.memo[name], content), dtype=np.float64).copy()

    def _logits(self, state: State, data: Encoded) -> np.ndarray:
        model = self.mount(state)
        order = np.argsort(data.lengths, kind="stable")
        with torch.inference_mode():
            rows = [model(*collate(data, order[i : i + BATCH])) for i in range(0, len(order), BATCH)]
        out = np.empty((len(data), rows[0].shape[1]), dtype=np.float64)
        out[order] = torch.cat(rows).double().numpy()
        return out

    def _token_losses(self, state: State, data: Encoded) -> np.ndarray:
        """Return the losses of all texts behind each other, (predicted tokens,)."""
        model = self.mount(state)
        order = np.argsort(data.lengths, kind="stable")
        found: list[np.ndarray] = [np.empty(0)] * len(data)
        for part in (order[i : i + TEXTS] for i in range(0, len(order), TEXTS)):
            ids, mask = collate(data, part)
            with torch.inference_mode():
                losses = next_token_losses(model(ids, mask), ids, mask).double().numpy()
            for row, own in zip(part, losses, strict=True):
                found[row] = own[: data.lengths[row] - 1]
        return np.concatenate(found)

    @property
    def bare(self) -> State:
        """The adapter that does nothing: every B zero, the head at its public start."""
        return {
            name: torch.zeros_like(value) if name.endswith(".B") else value.clone()
            for name, value in self.start.items()
        }


def _finite(values: np.ndarray, state: Mapping[str, Tensor]) -> np.ndarray:
    """Return ``values``, computed under ``state``; raises NotFiniteError where one of them is no number."""
    strange = int(np.count_nonzero(~np.isfinite(values)))
    if strange:
        largest = max(float(tensor.abs().max()) for tensor in state.values())
        raise NotFiniteError(
            f"the model gives {strange} of {values.size} logits or losses that are infinite or not a number under an "
            f"adapter whose largest weight is {largest:.3g}: training blew up. Lower optimizer.lr (and head_lr), or "
            "take fewer local steps"
        )
    return values


def _cipher(text: bytes, content: bytes) -> bytes:
    """Add a stream that follows from ``content`` alone; its own inverse."""
    stream = hashlib.shake_256(b"stream" + content).digest(len(text))
    return (np.frombuffer(text, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def _content(state: Mapping[str, Tensor], question: bytes, scaling: float) -> bytes:
    """Return a hash of what logits depend on; a factor A under a zero B does nothing and is left out."""
    digest = hashlib.sha256(repr(scaling).encode())
    for name in sorted(state):
        idle = name.endswith(".A") and not state[f"{name[:-2]}.B"].any()
        digest.update(name.encode() + (b"" if idle else state[name].contiguous().numpy().tobytes()))
    digest.update(question)
    return digest.digest()
