"""Reconstruction by descent on subspaces: texts whose inputs fit what the layers of one update span."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._drafts import Drafted, Reader, few_texts, read_clients
from ._exchange import Exchange
from ._observed import KEYS, evenly
from ._panes import Aligned, Alignment, make_alignment
from ._prior import SMALL, LanguageModel, causal_prior
from ._relaxed import descend, draw


class SubspaceDescentConfig(AttackConfig):
    """How far to look and how long to search."""

    updates: int = Field(default=1, ge=1, le=1000, description="updates of a client that are read, evenly spread")
    length: int | None = Field(
        default=None, ge=3, le=512, description="tokens of a text, special ones included; the spaces tell if absent"
    )
    texts: int | None = Field(
        default=None, ge=1, le=64, description="texts of an update; those drawn if absent, and none where over 4 are"
    )
    starts: int = Field(default=2, ge=1, le=64, description="random starts of the descent, the best of which goes on")
    layers: int = Field(default=3, ge=1, le=1000, description="layers whose spaces are used, from the first one on")
    steps: int = Field(default=300, ge=1, le=100_000, description="steps of the descent on free embeddings")
    rate: float = Field(default=0.4, gt=0, le=100, description="Adam's rate, in standard deviations of the embeddings")
    penalty: float = Field(default=0.3, ge=0, le=100, description="weight of the usual length of a word's embedding")
    rounds: int = Field(default=12, ge=0, le=100_000, description="rounds of the search over whole words")
    tries: int = Field(default=48, ge=1, le=1000, description="words that are exchanged in a text in each round")
    moves: int = Field(default=1000, ge=0, le=10_000, description="orders of a text looked at in every second round")
    prior: LanguageModel = SMALL


class SubspaceDescent(Attack[SubspaceDescentConfig]):
    """Descends on free embeddings until the inputs of several layers lie in the spaces that an update spans.

    After TIGER's loss for encoders: the share of each layer input's power outside the regularised space of the rows
    of dA, or behind A of the rows of dB, where a direction counts by how far it stands out of the known noise (float32,
    codec, DP-SGD). The other way round too: a direction that no input explains costs as well, or every slot would
    settle on the easiest word. The inputs are then read as words at places, and a search over whole words goes on.

    Only first derivatives of a few layers are asked for, no labels, and local steps do no harm in the first layer. It
    needs fewer tokens than rank, counted over the texts of an update; beyond that it says so and claims nothing. A
    space with fewer directions than another has lost some inputs, so it is used the other way round alone.

    That search goes over exchanges, insertions, deletions and orders; a causal language model proposes some of them,
    and the spaces alone decide. What differs from the paper, of which the abstract and others' notes were at hand: this
    language model in place of a prior over embeddings fitted on public text, and no positions' order for decoders.
    Drafts are claimed as they come out, untested; the distance stands in the note.
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
        texts = few_texts(reader.view.facts, client, asked=self.config.texts)
        if texts is None:
            return reader.passed(client)
        drafts = []
        for update in evenly(reader.shown(client), self.config.updates):
            body = reader.mounted(update.round)
            objective = make_alignment(body, update, layers=self.config.layers, keys=KEYS)
            if objective is not None:
                drafts.append(self._draft(reader, objective, texts, rng))
        return reader.texts(client, drafts, silent="no layer shows a space with room: noise, or tokens >= rank")

    def _draft(self, reader: Reader, objective: Alignment, texts: int, rng: np.random.Generator) -> Drafted:
        body, config = objective.body, self.config
        longest = reader.view.facts.max_length - 2 * body.opened
        start = draw(body, (config.starts, texts, self._slots(objective, texts, longest)), rng)
        slots = descend(body, objective, start, steps=config.steps, rate=config.rate, penalty=config.penalty)
        nearest = int(objective.distance(slots, progress=1.0).argmin())
        read = Aligned(objective, body.read(slots[nearest]).tolist())
        search = Exchange(read, longest, causal_prior(config.prior, reader.view.lab.tokenizer))
        words = torch.from_numpy(body.allowed)
        search.run([words] * config.rounds, tries=config.tries, moves=config.moves, rng=rng)
        return Drafted(search.texts, 1 - search.share)

    def _slots(self, objective: Alignment, texts: int, longest: int) -> int:
        """Return the free tokens of a text: texts share their opening token."""
        opened = objective.body.opened
        shared = texts - 1 if opened else 0
        length = self.config.length or -(-(objective.tokens + shared) // texts)
        return max(1, min(length - 2 * opened, longest))
