"""Reconstruction by descent on subspaces: texts whose inputs fit what the layers of one update span."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._drafts import Drafted, Reader, read_clients
from ._observed import KEYS, evenly
from ._panes import Alignment, make_alignment
from ._relaxed import Body, descend, draw
from ._rewriting import rewrite


class SubspaceDescentConfig(AttackConfig):
    """How far to look and how long to search."""

    updates: int = Field(default=1, ge=1, le=1000, description="updates of a client that are read, evenly spread")
    length: int | None = Field(
        default=None, ge=3, le=512, description="tokens of a text, special ones included; the spaces tell if absent"
    )
    texts: int = Field(default=1, ge=1, le=64, description="texts of an update")
    layers: int = Field(default=3, ge=1, le=1000, description="layers whose spaces are used, from the first one on")
    steps: int = Field(default=300, ge=1, le=100_000, description="steps of the descent on free embeddings")
    rate: float = Field(default=0.4, gt=0, le=100, description="Adam's rate, in standard deviations of the embeddings")
    penalty: float = Field(default=0.3, ge=0, le=100, description="weight of the usual length of a word's embedding")
    rounds: int = Field(default=40, ge=0, le=100_000, description="rounds of the search over whole words")
    tries: int = Field(default=12, ge=1, le=1000, description="changes of words tried in each of these rounds")


class SubspaceDescent(Attack[SubspaceDescentConfig]):
    """Descends on free embeddings until the inputs of several layers lie in the spaces that an update spans.

    After TIGER's loss for encoders: the share of each layer input's power outside the regularised space of the rows
    of dA, or behind A of the rows of dB, where a direction counts by how far it stands out of the known noise (float32,
    codec, DP-SGD). The other way round too: a direction that no input explains costs as well, or every slot would
    settle on the easiest word. The inputs are then read as words at places, and a search over whole words goes on.

    Only first derivatives of a few layers are asked for, no labels, and local steps do no harm in the first layer. It
    needs fewer tokens than rank, counted over the texts of an update; beyond that it says so and claims nothing. A
    space with fewer directions than another has lost some inputs, so it is used the other way round alone.

    What differs from the paper, of which the abstract and others' notes were at hand: no prior over embeddings fitted
    on public text, no batch of texts beyond what ``texts`` says, and no positions' order for decoders. Drafts are
    claimed as they come out, untested; the distance stands in the note.
    """

    name: ClassVar[str] = "subspace-descent"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = SubspaceDescentConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = "Kalikman et al., TIGER, arXiv 2606.18312, 2026"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that an adaptive optimizer hides the spaces."""
        if facts.training.optimizer.kind == "adamw":
            return "AdamW rescales every element of the update, so its rows leave the span of the inputs"
        return None

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return the best drafts for the updates of every client outside the seat."""
        return read_clients(view, lambda reader, client: self._client(reader, client, rng))

    def _client(self, reader: Reader, client: int, rng: np.random.Generator) -> ClientTexts:
        drafts = []
        for update in evenly(reader.shown(client), self.config.updates):
            body = reader.mounted(update.round)
            objective = make_alignment(body, update, layers=self.config.layers, keys=KEYS)
            if objective is not None:
                drafts.append(self._draft(body, objective, reader.view.facts, rng))
        return reader.texts(client, drafts, silent="no layer shows a space with room: noise, or tokens >= rank")

    def _draft(self, body: Body, objective: Alignment, facts: PublicFacts, rng: np.random.Generator) -> Drafted:
        start = draw(body, (1, self.config.texts, self._slots(body, objective, facts)), rng)
        slots = descend(
            body, objective, start, steps=self.config.steps, rate=self.config.rate, penalty=self.config.penalty
        )
        read, rounds, tries = body.read(slots[0]), self.config.rounds, self.config.tries
        found = rewrite(body, objective, read, rounds=rounds, tries=tries, longest=read.shape[1], rng=rng)
        return Drafted(found.ids.tolist(), found.distance)

    def _slots(self, body: Body, objective: Alignment, facts: PublicFacts) -> int:
        """Return the free tokens of a text: texts share their opening token."""
        shared = self.config.texts - 1 if body.opened else 0
        length = self.config.length or -(-(objective.tokens + shared) // self.config.texts)
        return max(1, min(length, facts.max_length) - 2 * body.opened)
