"""What a text costs under a model: the cross entropy of its label, or of its next tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qlorabench.suite.schema import Objective


def example_losses(
    objective: Objective, logits: Tensor, ids: Tensor, mask: Tensor, labels: np.ndarray | Tensor
) -> Tensor:
    """Return the loss of each text in nats, (batch,).

    Classification: the cross entropy of ``logits`` (batch, classes) against ``labels`` (batch,). Language modeling:
    the mean over a text's predicted tokens of the cross entropy of ``logits`` (batch, tokens, vocabulary), so that a
    long text counts as much as a short one and a text is the unit of DP-SGD. ``ids`` and ``mask`` are (batch, tokens).
    """
    if objective == "classification":
        return nn.functional.cross_entropy(logits, torch.as_tensor(labels), reduction="none")
    counts = mask[:, 1:].sum(1).clamp(min=1)  # of a text of one token nothing is predicted, and its loss is zero
    return next_token_losses(logits, ids, mask).sum(1) / counts


def next_token_losses(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the cross entropy of every token but the first one, (batch, tokens - 1), zero at padding.

    The logits (batch, tokens, vocabulary) of a place are held against the id of the next place.
    """
    predicted = logits[:, :-1]
    losses = nn.functional.cross_entropy(predicted.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(predicted.shape[:2]) * mask[:, 1:]
