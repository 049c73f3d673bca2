"""Extraction by generation: what the released adapter completes a prompt with."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ExtractionClaim, Goal
from qlorabench.threats.view import View

from ._secrets import Reading, Rule, read_secrets


class ExtractionConfig(AttackConfig):
    """How many completions are looked at, and what ranks them."""

    width: int = Field(
        default=10, ge=1, le=10_000, description="prefixes that the beam keeps; as many guesses are made"
    )
    ranking: Literal["likelihood", "calibrated"] = Field(
        default="calibrated",
        description="by the adapter's log-likelihood, or by what it adds to the bare backbone's",
    )


class Extraction(Attack[ExtractionConfig]):
    """Beam search for the likeliest secret under the adapter; log p_adapter - log p_backbone ranks what was found.

    Carlini et al. sample from a released model and rank samples by their likelihood, or by its ratio to that of another
    model, which removes what is likely anyway; here the other model is the public backbone. They sample
    whole texts of unknown form; here the prompt and the form of the secret are given, so that a beam over its digits
    takes the place of sampling.
    """

    name: ClassVar[str] = "extraction"
    goal: ClassVar[Goal] = Goal.EXTRACTION
    Config: ClassVar[type[AttackConfig]] = ExtractionConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.RELEASED_ADAPTER, Capability.CANARY_PROMPTS})
    paper: ClassVar[str] = "Carlini et al., Extracting Training Data from Large Language Models, USENIX Security 2021"

    def blind(self, facts: PublicFacts) -> str | None:
        """A task without canaries has no secrets to ask for."""
        return None if facts.canaries else "the task has no canaries"

    def run(self, view: View, rng: np.random.Generator) -> ExtractionClaim:
        """Return the guesses for each prompt and the scores of its references."""
        rank: Rule = _gain if self.config.ranking == "calibrated" else _likelihood
        how = Reading(search=_likelihood, rank=rank, width=self.config.width)
        note = f"released adapter, {self.config.ranking}"
        return read_secrets(view.lab, view.prompts, (view.lab.bare, view.released), how, note=note)


def _likelihood(log_probabilities: np.ndarray) -> np.ndarray:
    """Log-likelihood under the last snapshot."""
    found: np.ndarray = log_probabilities[-1].sum(-1)
    return found


def _gain(log_probabilities: np.ndarray) -> np.ndarray:
    """Log-likelihood under the last snapshot beyond that under the first."""
    found: np.ndarray = (log_probabilities[-1] - log_probabilities[0]).sum(-1)
    return found
