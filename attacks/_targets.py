"""What gradients are held against: the tensors of one update."""

from __future__ import annotations

import torch

from qlorabench.threats.view import View

from ._backdrop import Target
from ._observed import Shown
from ._subspace import row_space


def observed_targets(view: View, client: int, shown: Shown) -> dict[str, Target]:
    """Return what the update changed of each factor, and of a shared head, by tensor.

    Nothing where no factor's change stands out of the known noise.
    """
    targets = factor_targets(shown)
    if not any(row_space(change.rows).rank for change in (*shown.of_a, *shown.of_b)):
        return {}
    update = next(u for u in view.updates if (u.client, u.round) == (client, shown.round))
    head = update.state.get("head.weight")
    if head is not None and bool(head.isfinite().all()) and bool(head.any()):
        targets["head.weight"] = Target(head.float(), 0.0)
    return targets


def factor_targets(shown: Shown) -> dict[str, Target]:
    """Return what the update changed of each factor, by tensor."""
    changes = [("A", change) for change in shown.of_a] + [("B", change) for change in shown.of_b]
    return {
        f"{change.module}.{role}": Target(
            torch.from_numpy(change.rows * change.noise[:, None]).float(), float((change.noise**2).mean())
        )
        for role, change in changes
    }
