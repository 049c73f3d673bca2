"""DP-SGD on every client: per-example clipping, Gaussian noise, Poisson sampling, accounted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from qlorabench.errors import UserError
from qlorabench.federation.defense import Defense, DefenseConfig, RoundContext, Schedule
from qlorabench.federation.local import LocalTraining

from ._accounting import LEAST, LEAST_DELTA, MOST, needed, spent


class DpSgdConfig(DefenseConfig):
    """The privacy target of each client, and the clip norm."""

    epsilon: float = Field(default=8.0, ge=LEAST, le=MOST, description="target epsilon of each client, sample level")
    delta: float = Field(default=1e-5, ge=LEAST_DELTA, lt=1, description="target delta, below 1 / rows")
    clip_norm: float = Field(default=1.0, gt=0, le=1e6, description="largest norm C of a per-example gradient")


@dataclass(frozen=True)
class PoissonBatches:
    """Every row is in every batch with the same probability, on its own: what the accountant assumes."""

    rows: int
    sample_rate: float
    steps: int

    def batches(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield ``steps`` arrays of row indices; an array may be empty."""
        for _ in range(self.steps):
            yield np.flatnonzero(rng.random(self.rows) < self.sample_rate)


class DpSgd(Defense[DpSgdConfig]):
    """DP-SGD (Abadi et al. 2016) as FFA-LoRA uses it: the guarantee is each client's own, the server untrusted.

    Opacus clips, adds noise and accounts (PRV). The noise is calibrated to epsilon, from 0.99 of it to all of it, over
    all local steps of all rounds at the sampling rate that the sampler really has, batch / rows (1 on a client of one
    row). An empty batch still adds noise.
    The noise comes from the seed tree and not from a cryptographic source: this measures DP, it does not
    deploy it.
    """

    name: ClassVar[str] = "dp-sgd"
    Config: ClassVar[type[DefenseConfig]] = DpSgdConfig
    paper: ClassVar[str] = "Abadi et al., Deep Learning with Differential Privacy, CCS 2016; Sun et al., ICLR 2024"
    exclusive: ClassVar[frozenset[str]] = frozenset({"local gradients"})

    def public_facts(self, schedule: Schedule) -> dict[str, Any]:
        """Return for each client the sampling rate, the noise multiplier, the steps and the epsilon spent."""
        _check_delta(self.config.delta, schedule.client_rows)
        steps = schedule.rounds * schedule.local_steps
        rates = [schedule.batch(i) / rows for i, rows in enumerate(schedule.client_rows)]
        return {"clients": [self._guarantee(rate, steps) for rate in rates], "delta": self.config.delta}

    def _guarantee(self, sample_rate: float, steps: int) -> dict[str, float]:
        noise = _noise_multiplier(self.config.epsilon, self.config.delta, sample_rate, steps)
        return {
            "sample_rate": sample_rate,
            "steps": steps,
            "noise_multiplier": noise,
            "epsilon": _epsilon(noise, self.config.delta, sample_rate, steps),
        }

    def local_training(self, training: LocalTraining, context: RoundContext) -> LocalTraining:
        """Return ``training`` with Poisson batches, per-example gradients, clipping and noise."""
        import torch
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        assert context.client is not None
        guarantee = context.facts["clients"][context.client]
        rate = guarantee["sample_rate"]
        _watch_trained_layers(training.model)
        model = GradSampleModule(training.model, loss_reduction="sum")
        optimizer = DPOptimizer(
            training.optimizer,
            noise_multiplier=guarantee["noise_multiplier"],
            max_grad_norm=self.config.clip_norm,
            expected_batch_size=rate * len(training.data),
            generator=torch.Generator().manual_seed(int(context.rng.integers(2**62))),
        )
        return replace(
            training,
            model=model,
            sampler=PoissonBatches(len(training.data), rate, training.sampler.steps),
            optimizer=optimizer,
            reduction="sum",
            after_microbatch=_accumulate(optimizer, training.parameters),
            close=model.to_standard_module,
        )


def _watch_trained_layers(model: Any) -> None:
    """Put the layers that train, and no others, in training mode.

    Opacus records nothing of a layer in evaluation mode, in silence; the backbone's dropout stays off.
    """
    for module in model.modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            module.training = True


def _accumulate(optimizer: Any, parameters: list[Any]) -> Any:
    """Return a callback that clips and sums each microbatch, and adds noise once, on the step's last."""

    def after(last: bool) -> None:
        for p in parameters:
            if getattr(p, "grad_sample", None) is None:
                p.grad_sample = p.new_zeros((0, *p.shape))  # an empty Poisson batch: noise alone
        optimizer.signal_skip_step(do_skip=not last)
        optimizer.step()
        optimizer.zero_grad()

    return after


def _noise_multiplier(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    try:
        return needed(epsilon, delta, sample_rate, steps)
    except ValueError as error:
        raise UserError(
            f"dp-sgd: epsilon {epsilon:g} at delta {delta:g} cannot be reached at sampling rate {sample_rate:.3g} in "
            f"{steps} steps: {error}. Allow a larger epsilon, or train for fewer steps on more rows."
        ) from error


def _epsilon(noise_multiplier: float, delta: float, sample_rate: float, steps: int) -> float:
    return spent(noise_multiplier, delta, sample_rate, steps)


def _check_delta(delta: float, client_rows: Sequence[int]) -> None:
    """Raise UserError where publishing one row at random, which protects nobody, would have so small a delta."""
    rows = max(client_rows)
    if delta >= 1 / rows:
        raise UserError(
            f"dp-sgd: delta {delta:g} is no protection for a client of {rows} rows: who publishes a row at random has "
            f"delta {1 / rows:.2g}. Take one well below that, as 1e-5."
        )
