"""What gradients are held against: the tensors of one update."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qlorabench.threats.view import View

from ._backdrop import Target
from ._dictionary import Floats
from ._observed import Shown
from ._subspace import row_space

_SIGMAS = 4.0
"""Standard deviations of noise's power beyond which there is more than noise: once in 30,000 tries."""


def observed_targets(view: View, client: int, shown: Shown) -> dict[str, Target]:
    """Return what the update changed of each factor, and of a shared head, by tensor.

    Nothing where the update does not stand out of the known noise.
    """
    targets = factor_targets(shown)
    if not stands_out([change.rows for change in (*shown.of_a, *shown.of_b)]):
        return {}
    update = next(u for u in view.updates if (u.client, u.round) == (client, shown.round))
    head = update.state.get("head.weight")
    if head is not None and bool(head.isfinite().all()) and bool(head.any()):
        targets["head.weight"] = Target(head.float(), 0.0)
    return targets


def stands_out(changes: Sequence[Floats]) -> bool:
    """Tell whether ``changes``, each in units of the noise of its elements, are more than noise.

    Either a direction of one of them rises above what noise reaches, or the power of all of their D elements together
    does: under noise alone it is D with a standard deviation of sqrt(2 D). Gradients are matched over all elements, and
    so they see what no single direction shows.
    """
    if any(row_space(rows).rank for rows in changes):
        return True
    power, count = sum(float((rows**2).sum()) for rows in changes), sum(rows.size for rows in changes)
    return bool(power > count + _SIGMAS * (2 * count) ** 0.5)


def factor_targets(shown: Shown) -> dict[str, Target]:
    """Return what the update changed of each factor, by tensor."""
    changes = [("A", change) for change in shown.of_a] + [("B", change) for change in shown.of_b]
    return {
        f"{change.module}.{role}": Target(
            torch.from_numpy(change.rows * change.noise[:, None]).float(), float((change.noise**2).mean())
        )
        for role, change in changes
    }
