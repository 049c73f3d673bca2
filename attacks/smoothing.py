"""Adapter theft: the server's full-precision adapter from its quantized broadcasts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import AdapterClaim, Goal
from qlorabench.threats.view import View

from ._track import Estimate, Track, broadcast_codec


class SmoothingConfig(AttackConfig):
    """How far back the attack looks, and how the estimator is chosen."""

    longest: int = Field(default=64, ge=1, le=10_000, description="longest window of broadcasts, in rounds")
    holdout: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="last broadcasts that are predicted from earlier ones to choose K",
    )
    empty: float = Field(
        default=0.002,
        ge=0,
        lt=1,
        description="largest share of empty intersections for a spread to be trusted",
    )


class Smoothing(Attack[SmoothingConfig]):
    """Estimate theta_T from Q(theta_0), ..., Q(theta_T), each broadcast carried forward by the known drift.

    The mean of the seat's own updates stands for the drift g_t of the server. Two families of estimators:

    - the mean of the last K broadcasts, carried forward by the known drift or as they are; under stochastic
      rounding (a non-subtractive dither) its error falls as 1/K. K is chosen without the truth, by how well
      each estimator predicts the broadcasts that are held out at the end: their own rounding errors are
      independent of the earlier ones, so they add the same to every estimator.
    - interval intersection: a code confines each coordinate to a cell, whose ends are known. Cells, carried
      forward by g_t and widened by ``spread`` times the size of g_t in that tensor, are intersected and the
      midpoint is taken (consistent reconstruction). An empty intersection starts anew. Rounding to nearest
      repeats its errors, so prediction cannot rank there; the smallest spread that leaves (nearly) no
      intersection empty is taken, as set-membership filtering does, and the last broadcast where none does.

    No published attack on quantized adapter broadcasts was found.
    """

    name: ClassVar[str] = "smoothing"
    goal: ClassVar[Goal] = Goal.ADAPTER
    Config: ClassVar[type[AttackConfig]] = SmoothingConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.BROADCASTS})
    uses: ClassVar[frozenset[Capability]] = frozenset({Capability.OWN_UPDATES})
    paper: ClassVar[str] = "Goyal, Vetterli and Thao, Quantized Overcomplete Expansions in R^N, IEEE T-IT 1998"

    def run(self, view: View, rng: np.random.Generator) -> AdapterClaim:
        """Return the claimed travelling tensors after the last round."""
        released = view.broadcasts[-1].state
        codec = broadcast_codec(view.facts)
        if codec is None:
            return AdapterClaim(released, note="the broadcast is not quantized")
        track = Track.of(view, codec)
        estimate = self._by_prediction(track) if codec.rounding == "stochastic" else self._by_consistency(track)
        factors = view.facts.travelling.only("A", "B").unflatten(estimate.values.float())
        return AdapterClaim({**released, **factors}, note=estimate.label)

    def _by_prediction(self, track: Track) -> Estimate:
        windows = [2**i for i in range(8) if 2**i <= min(self.config.longest, track.last + 1)]
        choices = [(window, carry) for window in windows for carry in (0.0, 1.0)]
        targets = range(max(1, track.last + 1 - self.config.holdout), track.last + 1)
        errors = [np.mean([track.prediction_error(*choice, target=t) for t in targets]) for choice in choices]
        window, carry = choices[int(np.argmin(errors))]
        said = f"mean of the last {window}" + (", carried by own updates" if carry and window > 1 else "")
        return Estimate(said, track.mean(window, carry, end=track.last))

    def _by_consistency(self, track: Track) -> Estimate:
        for spread in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
            values, empty = track.intersection(spread)
            if empty <= self.config.empty:
                return Estimate(f"intersection, spread {spread:g}", values)
        return Estimate("the last broadcast: the drift is too fast to intersect", track.values[-1])
