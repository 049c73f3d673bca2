"""One layer as one update shows it: how far inputs that a candidate text would have lie from what was used.

Shapes: T tokens, d width, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._dictionary import Floats
from ._forward import Singles
from ._observed import KEYS, Shown
from ._subspace import Space, row_space

_ROOM = 2
"""Directions that must be left over, or everything passes."""


@dataclass(frozen=True)
class Glass:
    """A space that holds every input of a layer, seen behind the factor A of a module where there is one."""

    space: Space
    factor: Floats | None
    """(r, d), or ``None`` where the inputs are seen as they are."""

    def residuals(self, inputs: Singles) -> Floats:
        """Return the relative distance of ``inputs`` (T, d) from the space, (T,), in float32 as the inputs are."""
        seen = inputs if self.factor is None else inputs @ self.factor.T.astype(np.float32)
        basis = self.space.basis.astype(np.float32)
        outside = seen - (seen @ basis.T) @ basis
        residuals: Floats = np.linalg.norm(outside, axis=1).astype(np.float64) / np.linalg.norm(seen, axis=1)
        return residuals


def update_glasses(shown: Shown) -> tuple[Glass, ...]:
    """Return the glasses that one update gives: through dB where fewer tokens than rank were used, else through dA.

    Rows of dB are combinations of A x, and B starts at zero, where float32 is finest. Keys are left out: their
    rows span a direction less, for softmax hides what all keys of a text share.
    """
    through_b = [
        Glass(row_space(change.rows), shown.factors[change.module])
        for change in shown.of_b
        if change.module.rpartition(".")[2] not in KEYS
    ]
    live = tuple(glass for glass in through_b if 0 < glass.space.rank <= glass.space.width - _ROOM)
    if live or not shown.of_a:
        return live
    space = row_space(np.vstack([change.rows for change in shown.of_a]))
    fits = 0 < space.rank < space.rows and space.rank <= space.width - _ROOM
    return (Glass(space, None),) if fits else ()


def distance(glasses: Sequence[Glass], inputs: Singles) -> Floats:
    """Return the root mean square residual of each of ``inputs`` (T, d) over ``glasses``, (T,)."""
    squares: Floats = np.mean([glass.residuals(inputs) ** 2 for glass in glasses], axis=0)
    return np.sqrt(squares)
