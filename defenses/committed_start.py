"""Committed start: clients refuse broadcasts that do not continue from a start they all know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from qlorabench.federation.defense import Defense, DefenseConfig, RoundContext
from qlorabench.federation.state import State

if TYPE_CHECKING:
    from torch import Tensor


class CommittedStartConfig(DefenseConfig):
    """How far a broadcast may be from what was committed to, and from the one before it."""

    start_tolerance: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="largest relative distance of a tensor of the first broadcast from its committed start; covers the "
        "codec of the broadcast",
    )
    max_drift: float = Field(
        default=0.75,
        gt=0,
        le=2,
        description="largest relative change of a factor A between two broadcasts; two unrelated ones are 1.4 apart",
    )
    min_kept: float = Field(
        default=0.5, gt=0, le=1, description="least share of the norm of a factor B that the next broadcast keeps"
    )


class CommittedStart(Defense[CommittedStartConfig]):
    """A client-side check of broadcasts, against a server that crafts them (A-stacking and other resets).

    Every client derives the public start from the committed seed. The first broadcast must be that start, up to
    the codec: a client cannot repeat a codec that rounds at random, so the distance is checked, not the bytes. Later
    ones must continue: no A moves further than ``max_drift`` at a time, no B is zero, and none shrinks below
    ``min_kept`` of itself. Distances are Frobenius norms, tensor by tensor.

    It stops servers that send a new A with B = 0 round after round, or a start of their own making. It does not stop
    a patient one, which keeps B far below what training would make of it (tiny, or zero in some directions) and turns
    A by less than ``max_drift`` a round: `a-stacking` with a ``drift`` of 0.05 or 0.5 still reads every token of a
    client of one sentence and one local step, and none where the client takes six steps. Only an aggregate that
    clients can verify would tell them that B should have grown.
    Honest rounds of the quickstart change A by 0.16, and by 0.38 behind 2-bit broadcasts, and keep 0.8 of B. Coarser
    or stochastic codecs and hot learning rates need wider limits: an honest round past them ends the run and says so.
    """

    name: ClassVar[str] = "committed-start"
    Config: ClassVar[type[DefenseConfig]] = CommittedStartConfig
    paper: ClassVar[str] = "no paper; a check against crafted broadcasts of adapters over a public backbone"
    exclusive: ClassVar[frozenset[str]] = frozenset({"broadcast check"})

    def accept(
        self, received: State, *, previous: State | None, start: Mapping[str, Tensor], context: RoundContext
    ) -> str | None:
        """Return what is wrong with the first tensor that is out of bounds, else ``None``."""
        reasons = (
            self._start(spec.name, received[spec.name], start[spec.name])
            if previous is None
            else self._step(spec.name, received[spec.name], previous[spec.name])
            for spec in context.layout
        )
        return next((reason for reason in reasons if reason), None)

    def _start(self, name: str, received: Tensor, committed: Tensor) -> str | None:
        far = _distance(received, committed)
        if far <= self.config.start_tolerance:
            return None
        limit = self.config.start_tolerance
        return f"{name} is {far:.2g} of its norm away from the committed start (start_tolerance {limit:g})"

    def _step(self, name: str, received: Tensor, before: Tensor) -> str | None:
        if name.endswith(".A") and not (drift := _distance(received, before)) <= self.config.max_drift:
            return f"{name} changed by {drift:.2g} of its norm in one round (max_drift {self.config.max_drift:g})"
        if name.endswith(".B") and not received.any():
            return f"{name} is zero, as if nobody had trained it"
        kept = float(received.norm() / before.norm()) if before.any() else 1.0
        if name.endswith(".B") and not kept >= self.config.min_kept:
            return f"{name} shrank to {kept:.2g} of its norm in one round (min_kept {self.config.min_kept:g})"
        return None


def _distance(left: Tensor, right: Tensor) -> float:
    """Return |left - right| / |right|, where a zero ``right`` must be met exactly."""
    far, size = float((left - right).norm()), float(right.norm())
    return far / size if size else (0.0 if far == 0 else float("inf"))
