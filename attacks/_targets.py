"""What gradients are held against: the tensors of one update, and the labels that its head gives away."""

from __future__ import annotations

import torch
from torch import Tensor

from qlorabench.federation.local import schedule_factor
from qlorabench.threats.view import View

from ._matching import Target, make_target
from ._observed import Shown
from ._subspace import row_space


def observed_targets(view: View, client: int, shown: Shown) -> dict[str, Target]:
    """Return minus every factor's change, by tensor; nothing where no factor's stands out of the known noise."""
    changes = [("A", change) for change in shown.of_a] + [("B", change) for change in shown.of_b]
    if not any(row_space(change.rows).rank for _, change in changes):
        return {}
    targets = {}
    for role, change in changes:
        rows = torch.from_numpy(-change.rows * change.noise[:, None]).float()
        targets[f"{change.module}.{role}"] = make_target(rows, variance=float((change.noise**2).mean()))
    weight = head_change(view, client, shown, "head.weight")
    return targets if weight is None else {**targets, "head.weight": make_target(-weight)}


def head_change(view: View, client: int, shown: Shown, name: str) -> Tensor | None:
    """Return what the update changed of the head's tensor ``name``, if it did."""
    update = next(u for u in view.updates if (u.client, u.round) == (client, shown.round))
    change = update.state.get(name)
    return change if change is not None and bool(change.isfinite().all()) and bool(change.any()) else None


def likely_labels(view: View, client: int, shown: Shown, *, texts: int) -> Tensor:
    """Return the labels to try, (C, texts).

    The gradient of the head's bias is the mean of p - y: of one text its sign gives the label (Zhao et al., iDLG,
    2020), of several the number of each label, with p taken as uniform. Without it all labels of one text are tried,
    and of several texts an even mix alone.
    """
    facts, classes = view.facts, len(view.facts.label_names)
    bias = head_change(view, client, shown, "head.bias")
    if bias is None:
        single, mix = torch.arange(classes)[:, None], (torch.arange(texts) % classes)[None]
        return single if texts == 1 else mix
    optimizer = facts.training.optimizer
    rate = optimizer.lr if optimizer.head_lr is None else optimizer.head_lr
    rate *= schedule_factor(optimizer, round=shown.round, rounds=facts.training.rounds) * facts.training.local_steps
    return label_mix(bias / rate, texts)[None]


def label_mix(pull: Tensor, texts: int) -> Tensor:
    """Return the labels (texts,) whose mean of y - 1 / classes is closest to ``pull`` (classes,), in order."""
    left, labels = texts * (pull + 1 / len(pull)), []
    for _ in range(texts):
        label = int(left.argmax())
        left[label] -= 1
        labels.append(label)
    return torch.tensor(sorted(labels))
