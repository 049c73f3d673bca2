"""Reconstruction by gradient matching: texts whose gradients are closest to one update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._drafts import Reader, drawn_texts, read_clients
from ._matching import Matching, Target
from ._observed import Shown, evenly
from ._relaxed import Body, descend, draw
from ._rewriting import Draft, rewrite
from ._targets import likely_labels, observed_targets

_LENGTHS = (0.35, 0.5, 0.7)
"""Shares of the longest text that are tried where the length is not known."""


class GradientMatchingConfig(AttackConfig):
    """How long to search: steps and rounds are those of one text and are shared among the texts of an update.

    The defaults take some 25 seconds of a core for an update of MiniLM.
    """

    updates: int = Field(default=1, ge=1, le=1000, description="updates of a client that are read, the first one on")
    length: int | None = Field(
        default=None, ge=3, le=512, description="tokens of a text, special ones included; a few are tried if absent"
    )
    texts: int | None = Field(
        default=None, ge=1, le=64, description="texts of an update; those of its local steps, at most 4, if absent"
    )
    steps: int = Field(default=100, ge=1, le=100_000, description="steps of the descent on free embeddings")
    probe: int = Field(default=8, ge=1, le=10_000, description="steps that a length and labels are tried for")
    restarts: int = Field(default=1, ge=1, le=64, description="random starts of each length that are tried")
    rate: float = Field(default=0.4, gt=0, le=100, description="Adam's rate, in standard deviations of the embeddings")
    penalty: float = Field(default=0.3, ge=0, le=100, description="weight of the usual length of a word's embedding")
    rounds: int = Field(default=20, ge=0, le=100_000, description="rounds of the search over whole words")
    tries: int = Field(default=8, ge=1, le=1000, description="changes of words tried in each of these rounds")


class GradientMatching(Attack[GradientMatchingConfig]):
    """Searches for texts whose gradients point where an update points, after LAMP; reads through frozen A.

    Free embeddings descend (Adam) on one minus the cosine between their gradients and the update, tensor by tensor;
    they are read as words at places, and a search over swaps, moves and replacements of words goes on from there.

    - The update is divided by the strength of its directions (never below the known noise of codec and DP-SGD), so
      that words count whose gradients are weak; the plain cosine sees the strongest one or two directions alone.
    - Every factor that trains is matched; of a shared head the weights too, and its bias gives the labels. Else labels
      are tried: of two or more texts with one label each way, not all of them.
    - An update is taken for one step from the broadcast. With several local steps that is a first-order
      approximation, worse the larger the rate; with AdamW the gradients' signs are matched, which is cruder.
    - Texts of one update get equally many tokens. A short descent picks the length, which errs by several tokens;
      the search over words adds and removes some.

    Weaker than the paper's in that there is no language prior (LAMP scores drafts by GPT-2's perplexity; no seat here
    has one), and that the budget is seconds, not minutes, a text. The distance in the note is what the search
    reached, not a test: it claims its best draft whenever the update stands out of its known noise. Only classifiers.
    """

    name: ClassVar[str] = "gradient-matching"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = GradientMatchingConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = (
        "Balunovic et al., LAMP: Extracting Text from Gradients with Language Model Priors, NeurIPS 2022"
    )

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that the loss of a language model cannot be written without its words."""
        if facts.objective != "classification":
            return "a language model's loss asks for the words themselves, which free embeddings do not name"
        return None

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return the best drafts for the updates of every client outside the seat."""
        return read_clients(view, lambda reader, client: self._client(reader, client, rng))

    def _client(self, reader: Reader, client: int, rng: np.random.Generator) -> ClientTexts:
        shown = [update for update in reader.shown(client) if update.of_a or update.of_b]
        drafts = []
        for update in evenly(shown, self.config.updates):
            targets = observed_targets(reader.view, client, update)
            if targets:
                drafts.append(self._draft(reader, client, update, targets, rng))
        return reader.texts(client, drafts, silent="nothing above the noise" if shown else "no factor moved")

    def _draft(
        self, reader: Reader, client: int, update: Shown, targets: dict[str, Target], rng: np.random.Generator
    ) -> Draft:
        body = reader.mounted(update.round)
        facts = reader.view.facts
        labellings = likely_labels(reader.view, client, update, texts=self.config.texts or drawn_texts(facts, client))
        signs = facts.training.optimizer.kind == "adamw"
        objective = Matching(body, targets, labellings, signs)
        starts = [self._probed(body, objective, length, rng) for length in self._lengths(facts)]
        start = min(starts, key=lambda start: start.distance)
        objective = objective.labelled(start.labels[None])
        texts, longest = len(start.labels), facts.max_length - 2 * body.opened
        slots = self._descend(body, objective, start.slots[None], self.config.steps // texts)
        read, rounds = body.read(slots[0]), self.config.rounds // texts
        return rewrite(body, objective, read, rounds=rounds, tries=self.config.tries, longest=longest, rng=rng)

    def _lengths(self, facts: PublicFacts) -> list[int]:
        if self.config.length is not None:
            return [min(self.config.length, facts.max_length)]
        return sorted({max(3, round(share * facts.max_length)) for share in _LENGTHS})

    def _probed(self, body: Body, objective: Matching, length: int, rng: np.random.Generator) -> _Start:
        """Return the start of ``length`` tokens and the labels that a short descent likes best."""
        count, texts = objective.labels.shape
        labels = objective.labels.repeat(self.config.restarts, 1)
        slots = draw(body, (len(labels), texts, max(1, length - 2 * body.opened)), rng)
        objective = objective.labelled(labels)
        if count > 1 or self.config.restarts > 1 or self.config.length is None:
            slots = self._descend(body, objective, slots, max(1, self.config.probe // texts))
        far = objective.distance(slots, progress=0.0).detach()
        best = int(far.argmin())
        return _Start(slots[best], labels[best], float(far[best]))

    def _descend(self, body: Body, objective: Matching, slots: Tensor, steps: int) -> Tensor:
        return descend(body, objective, slots, steps=steps, rate=self.config.rate, penalty=self.config.penalty)


@dataclass(frozen=True)
class _Start:
    slots: Tensor
    """(N, S, d)"""
    labels: Tensor
    """(N,)"""
    distance: float
