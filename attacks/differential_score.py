"""Differential score: what became more likely between two snapshots of the adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ExtractionClaim, Goal
from qlorabench.threats.view import View

from ._secrets import Reading, Rule, read_secrets


class DifferentialScoreConfig(AttackConfig):
    """Which snapshots are compared, how, and how wide the search is."""

    snapshots: Literal["backbone", "first-last", "consecutive"] = Field(
        default="backbone",
        description="the bare backbone and the last broadcast, the first and the last one, or each and the next one",
    )
    relative: Literal["difference", "ratio"] = Field(
        default="ratio", description="a token counts by the difference of its probabilities, or by their log-ratio"
    )
    most: int = Field(
        default=4, ge=2, le=1000, description="most broadcasts of `consecutive`, evenly spaced over the rounds"
    )
    width: int = Field(
        default=10, ge=1, le=10_000, description="prefixes that the beam keeps; as many guesses are made"
    )


class DifferentialScore(Attack[DifferentialScoreConfig]):
    """Beam search for the string whose differential score is largest; no data is needed, the snapshots are enough.

    With snapshots M and M' the score of a string is the sum over its tokens of p_M'(w) - p_M(w), or of
    log p_M'(w) - log p_M(w) in its relative form. With several pairs of snapshots a string has its largest score over
    the pairs: a text that enters in one round stands out there. The paper compares a model before and after one
    update and searches the whole vocabulary; here broadcasts are the snapshots, and the alphabet of the secret is
    known. All tokens of a secret are its digits, so probabilities are those among the digits.
    """

    name: ClassVar[str] = "differential-score"
    goal: ClassVar[Goal] = Goal.EXTRACTION
    Config: ClassVar[type[AttackConfig]] = DifferentialScoreConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.BROADCASTS, Capability.CANARY_PROMPTS})
    paper: ClassVar[str] = (
        "Zanella-Beguelin et al., Analyzing Information Leakage of Updates to Natural Language Models, CCS 2020"
    )

    def blind(self, facts: PublicFacts) -> str | None:
        """A task without canaries has no secrets to ask for."""
        return None if facts.canaries else "the task has no canaries"

    def run(self, view: View, rng: np.random.Generator) -> ExtractionClaim:
        """Return the guesses for each prompt and the scores of its references."""
        rule: Rule = _ratio if self.config.relative == "ratio" else _difference
        how = Reading(search=rule, rank=rule, width=self.config.width)
        note = f"{self.config.relative} of {self.config.snapshots} snapshots"
        return read_secrets(view.lab, view.prompts, self._snapshots(view), how, note=note)

    def _snapshots(self, view: View) -> list[Mapping[str, Tensor]]:
        states = [broadcast.state for broadcast in view.broadcasts]
        if self.config.snapshots == "backbone":
            return [view.lab.bare, states[-1]]
        count = 2 if self.config.snapshots == "first-last" else min(self.config.most, len(states))
        return [states[i] for i in np.linspace(0, len(states) - 1, count).round().astype(int)]


def _difference(log_probabilities: np.ndarray) -> np.ndarray:
    """Sum over tokens of the gain in probability, the largest over pairs of successive snapshots."""
    found: np.ndarray = np.diff(np.exp(log_probabilities), axis=0).sum(-1).max(0)
    return found


def _ratio(log_probabilities: np.ndarray) -> np.ndarray:
    """Sum over tokens of the gain in log-probability, the largest over pairs of successive snapshots."""
    found: np.ndarray = np.diff(log_probabilities, axis=0).sum(-1).max(0)
    return found
