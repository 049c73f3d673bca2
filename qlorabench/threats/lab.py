"""The adversary's own bench: the public backbone, to compute with whatever it likes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qlorabench.federation.model import AdapterModel
from qlorabench.federation.state import State
from qlorabench.tasks.encoding import Encoded, collate

BATCH = 64
"""Rows of one forward pass in evaluation."""


@dataclass(frozen=True)
class Lab:
    """The public model under adapters of the system's shape, its tokenizer, and its public start."""

    model: AdapterModel
    tokenizer: Any
    start: Mapping[str, Tensor]
    """Public start of every tensor; what never travels stays so."""
    memo: dict[str, bytes] = field(default_factory=dict)
    """Logits, so that no pair of adapter and data is computed twice. Name and cipher come from the content of the
    pair: only who holds both can read an entry, though seats share the memo."""

    def mount(self, state: Mapping[str, Tensor]) -> AdapterModel:
        """Return the model with ``state`` over the public start."""
        self.model.load({**self.start, **state})
        return self.model

    def logits(self, state: Mapping[str, Tensor], data: Encoded) -> np.ndarray:
        """Return logits of shape (rows, classes) for ``data`` under the adapter ``state``."""
        full = {**self.start, **state}
        content = _content(full, data, self.model.scaling)
        name = hashlib.sha256(b"name" + content).hexdigest()
        if name not in self.memo:
            self.memo[name] = _cipher(self._logits(full, data).tobytes(), content)
        plain = _cipher(self.memo[name], content)
        return np.frombuffer(plain, dtype=np.float64).reshape(len(data), -1).copy()

    def _logits(self, state: Mapping[str, Tensor], data: Encoded) -> np.ndarray:
        model = self.mount(state)
        order = np.argsort(data.lengths, kind="stable")
        with torch.inference_mode():
            rows = [model(*collate(data, order[i : i + BATCH])) for i in range(0, len(order), BATCH)]
        out = np.empty((len(data), rows[0].shape[1]), dtype=np.float64)
        out[order] = torch.cat(rows).double().numpy()
        return out

    def losses(self, state: Mapping[str, Tensor], data: Encoded) -> np.ndarray:
        """Return the cross entropy of each row of ``data``, (rows,), in nats, under the adapter ``state``."""
        logits = torch.from_numpy(self.logits(state, data))
        return nn.functional.cross_entropy(logits, torch.from_numpy(data.labels), reduction="none").numpy()

    @property
    def bare(self) -> State:
        """The adapter that does nothing: every B zero, the head at its public start."""
        return {
            name: torch.zeros_like(value) if name.endswith(".B") else value.clone()
            for name, value in self.start.items()
        }


def _cipher(text: bytes, content: bytes) -> bytes:
    """Add a stream that follows from ``content`` alone; its own inverse."""
    stream = hashlib.shake_256(b"stream" + content).digest(len(text))
    return (np.frombuffer(text, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def _content(state: Mapping[str, Tensor], data: Encoded, scaling: float) -> bytes:
    """Return a hash of what logits depend on; a factor A under a zero B does nothing and is left out."""
    digest = hashlib.sha256(repr(scaling).encode())
    for name in sorted(state):
        idle = name.endswith(".A") and not state[f"{name[:-2]}.B"].any()
        digest.update(name.encode() + (b"" if idle else state[name].contiguous().numpy().tobytes()))
    for ids in data.ids:
        digest.update(ids.tobytes() + b"/")
    return digest.digest()
