"""Frozen A: only B trains and travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from qlorabench.federation.defense import Defense, DefenseConfig
from qlorabench.federation.state import Role, State

if TYPE_CHECKING:
    from torch import Tensor


class FrozenAConfig(DefenseConfig):
    """How the public factor A starts, and stays."""

    init: Literal["kaiming", "normal", "orthogonal", "svd"] = Field(
        default="kaiming",
        description="`kaiming`: uniform in +-1/sqrt(d_in); `normal`: Gaussian; `orthogonal`: orthonormal rows; `svd`: "
        "the first right singular vectors of W0; all with rows of (expected) squared norm 1/3",
    )


class FrozenA(Defense[FrozenAConfig]):
    """FFA-LoRA: A is drawn once from a public seed and frozen, B starts at zero and trains.

    Aggregation becomes exact, mean(B) A = mean(B A) (Eq. 5), and DP noise on B is not multiplied by noise on A.
    Every start is scaled so that a row of A has the expected squared norm of the Kaiming default, 1/3: the
    paper compares starts (App. A.8) without saying how it scales them.
    """

    name: ClassVar[str] = "frozen-a"
    Config: ClassVar[type[DefenseConfig]] = FrozenAConfig
    paper: ClassVar[str] = "Sun et al., Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024"
    exclusive: ClassVar[frozenset[str]] = frozenset({"trained factors"})

    def trains(self, role: Role) -> bool:
        """Tell that A neither trains nor travels."""
        return role != "A"

    def initialise(self, state: State, *, frozen_weights: Mapping[str, Tensor], rng: np.random.Generator) -> State:
        """Return ``state`` with every A, (rank, d_in), at the chosen start."""
        if self.config.init == "kaiming":
            return state
        return {
            name: self._start(value, frozen_weights[name.removesuffix(".A")], rng) if name.endswith(".A") else value
            for name, value in state.items()
        }

    def _start(self, a: Tensor, w0: Tensor, rng: np.random.Generator) -> Tensor:
        import torch

        rank, width = a.shape
        if self.config.init == "normal":
            return torch.from_numpy(rng.normal(0.0, (3 * width) ** -0.5, (rank, width))).float()
        rows = np.empty((0, width))
        if self.config.init == "svd":
            rows = np.linalg.svd(w0.double().numpy(), full_matrices=False)[2][:rank]
        while len(rows) < rank:  # past the width, rows are orthonormal in blocks
            rows = np.concatenate([rows, np.linalg.qr(rng.normal(size=(width, width)))[0].T[: rank - len(rows)]])
        return torch.from_numpy(np.ascontiguousarray(rows) / 3**0.5).float()
