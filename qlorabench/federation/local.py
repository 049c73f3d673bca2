"""Local training of one client: a sampler of batches, a backward pass, an optimizer; hooks wrap each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from qlorabench.federation.losses import example_losses
from qlorabench.federation.model import AdapterModel
from qlorabench.suite.schema import Objective, OptimizerConfig
from qlorabench.tasks.encoding import Encoded, collate

MICROBATCH = 8
"""Rows in one forward pass; batches are cut by length, so that short texts are not padded to long ones."""


class Sampler(Protocol):
    """Draws the batches of one round."""

    @property
    def steps(self) -> int:
        """Batches in a round."""

    def batches(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the local row indices of each step; an empty batch is allowed."""


@dataclass(frozen=True)
class ShuffledBatches:
    """Batches of ``batch_size`` without replacement, from as many shuffled passes as ``steps`` need."""

    rows: int
    batch_size: int
    steps: int

    def batches(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield ``steps`` arrays of ``batch_size`` row indices."""
        size = min(self.batch_size, self.rows)
        per_pass = self.rows // size
        order = np.empty(0, dtype=np.int64)
        for step in range(self.steps):
            if step % per_pass == 0:
                order = rng.permutation(self.rows)
            start = (step % per_pass) * size
            yield order[start : start + size]


@dataclass
class LocalTraining:
    """What runs on a client in one round. Defenses return a changed copy (`dataclasses.replace`)."""

    model: nn.Module
    """Maps token ids and mask to logits; a defense may wrap it."""
    parameters: list[nn.Parameter]
    """The tensors that train, in the order of the travelling layout."""
    data: Encoded
    """The client's examples, tokenized."""
    sampler: Sampler
    optimizer: Any
    """``torch.optim.Optimizer`` or a wrapper of one."""
    reduction: str
    """``mean`` over the batch, or ``sum`` where the optimizer divides by itself."""
    after_microbatch: Callable[[bool], None]
    """Called after each backward pass with whether it was the step's last; steps the optimizer on the last."""
    close: Callable[[], None]
    """Undoes what was wrapped around the model."""
    objective: Objective = "classification"
    """What a text's loss is."""

    def run(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Train for one round and return the row indices of every batch."""
        drawn = []
        try:
            for rows in self.sampler.batches(rng):
                drawn.append(rows)
                self._step(rows)
        finally:
            self.close()
        return drawn

    def _step(self, rows: np.ndarray) -> None:
        parts = by_length(rows, self.data.lengths)
        for number, part in enumerate(parts):
            if len(part):
                ids, mask = collate(self.data, part)
                loss = example_losses(self.objective, self.model(ids, mask), ids, mask, self.data.labels[part]).sum()
                (loss / len(rows) if self.reduction == "mean" else loss).backward()  # type: ignore[no-untyped-call]
            self.after_microbatch(number == len(parts) - 1)


def plain_training(
    model: AdapterModel, parameters: list[nn.Parameter], data: Encoded, sampler: Sampler, optimizer: Any
) -> LocalTraining:
    """Return undefended local training: mean gradient of each batch, one optimizer step a batch."""

    def after(last: bool) -> None:
        if last:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return LocalTraining(model, parameters, data, sampler, optimizer, "mean", after, lambda: None, model.objective)


def by_length(rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut ``rows`` into parts of at most `MICROBATCH` texts of similar length; one empty part for no rows."""
    order = rows[np.argsort(lengths[rows], kind="stable")]
    return [order[i : i + MICROBATCH] for i in range(0, len(order), MICROBATCH)] or [order]


def make_optimizer(
    parameters: Sequence[nn.Parameter], roles: Sequence[str], config: OptimizerConfig, *, factor: float
) -> torch.optim.Optimizer:
    """Return the local optimizer; a head has its own rate, and ``factor`` scales both (the schedule)."""
    head_lr = config.lr if config.head_lr is None else config.head_lr
    groups = [
        {
            "params": [p for p, role in zip(parameters, roles, strict=True) if (role == "head") == is_head],
            "lr": lr * factor,
        }
        for is_head, lr in ((False, config.lr), (True, head_lr))
    ]
    groups = [group for group in groups if group["params"]]
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def schedule_factor(config: OptimizerConfig, *, round: int, rounds: int) -> float:
    """Return the factor on the learning rate in ``round`` (counted from 0), in (0, 1]."""
    left = 1.0 - round / rounds
    if config.schedule == "linear":
        return left
    if config.schedule == "cosine":
        return 0.5 * (1.0 + float(np.cos(np.pi * (1.0 - left))))
    return 1.0
