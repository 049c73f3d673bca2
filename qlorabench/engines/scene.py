"""What the judge of one trained federation has at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.federation import wire
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import State
from qlorabench.federation.transcript import FederationStore
from qlorabench.scoring.score import Score
from qlorabench.scoring.utility import accuracy, perplexity
from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import Encoded
from qlorabench.tasks.partitions import ColumnPartition
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.challenge import Challenge
from qlorabench.threats.crafting import CraftedRun
from qlorabench.threats.lab import Lab, NotFiniteError
from qlorabench.threats.models import ThreatModel
from qlorabench.threats.observe import observe
from qlorabench.threats.prompts import ExtractionGame, draw_prompts
from qlorabench.threats.view import Broadcast, View


@dataclass(frozen=True)
class AttackSpec:
    """One attack from one seat, as a job."""

    threat: ThreatModel
    name: str
    """Name of the plug-in."""
    label: str
    config: dict[str, Any]
    candidates: int
    """Most members (and as many non-members) in the membership game."""
    insiders: int
    """Clients that sit in any seat of the suite. Their rows are nobody's candidates: all seats get the same ones."""
    null: SystemSpec | None = None
    """The same system under another seed, which did not train on (most of) the candidates: the control of membership.
    ``None`` where the suite has one seed, and for other goals."""


@dataclass(frozen=True)
class Scene:
    """What the judge of one trained federation has at hand; attacks see none of it but the lab."""

    spec: SystemSpec
    task: PreparedTask
    protocol: Protocol
    store: FederationStore
    lab: Lab

    @property
    def final_server(self) -> State:
        """The server's travelling tensors after the last round, in full precision."""
        return self.store.secrets.server_adapter(self.protocol.facts.training.rounds)

    @property
    def final_broadcast(self) -> State:
        """The same as every receiver of the last broadcast decodes them."""
        last = self.store.transcript.messages[-1]
        return self.protocol.decode_broadcast(self.store.transcript.data(last), round=last.round)

    @property
    def first_broadcast(self) -> Broadcast:
        """The message that starts the federation: the public start as the system's codecs send it."""
        first = self.store.transcript.select("down")[0]
        data = self.store.transcript.data(first)
        state = self.protocol.decode_broadcast(data, round=first.round)
        return Broadcast(first.round, data, wire.from_bytes(data), state)

    @property
    def generative(self) -> bool:
        """Whether the model predicts tokens, so that utility is perplexity."""
        return self.lab.model.objective == "language-modeling"

    def seen_by(
        self,
        threat: ThreatModel,
        challenge: Challenge,
        game: ExtractionGame,
        *,
        crafted: CraftedRun | None = None,
    ) -> View:
        """Return what the seat of ``threat`` observes."""
        by_examples = self.protocol.facts.training.weighting == "examples"
        return observe(
            threat,
            self.store.transcript,
            self.store.secrets,
            protocol=self.protocol,
            task=self.task,
            lab=self.lab,
            challenge=challenge,
            game=game,
            weights=[float(n) if by_examples else 1.0 for n in self.protocol.facts.client_rows],
            crafted=crafted,
        )

    def game(self, *, insiders: int) -> ExtractionGame:
        """Return the extraction game that every seat is posed; ``insiders`` clients sit in some seat of the suite."""
        seed = Seed(self.spec.seed, ("challenge", "prompts"))
        return draw_prompts(self.task.canaries, insiders=insiders, seed=seed)

    def crafted(self) -> CraftedRun:
        """Return the run that a malicious server has, not begun.

        The model is the worker's: nothing is left in it of what the last job looked at.
        """
        self.lab.mount({})
        seed = self.spec.random.child("crafted")
        return CraftedRun(self.lab.model, self.protocol, self.task, dict(self.lab.start), seed)

    @property
    def column(self) -> str | None:
        """The column whose groups the partition deals to clients; ``None`` where it deals rows."""
        partition = self.spec.task.partition
        return partition.column if isinstance(partition, ColumnPartition) else None

    @property
    def test(self) -> Encoded:
        """The texts on which utility is measured."""
        return self.task.encoded.take(self.task.test)

    def correct(self, state: State) -> np.ndarray:
        """Return which test rows a classifier tells rightly, (rows,), as 0 and 1."""
        right: np.ndarray = self.lab.logits(state, self.test).argmax(1) == self.test.labels
        return right.astype(float)

    def utility(self, metric: str, state: State) -> Score:
        """Return accuracy or perplexity on the test rows, called ``<accuracy or perplexity>_<metric>``.

        Texts are resampled alike whatever the state, so that equal losses have equal intervals.
        """
        if not self.generative:
            return accuracy(f"accuracy_{metric}", self.correct(state))
        losses = self.lab.token_losses(state, self.test)
        return perplexity(f"perplexity_{metric}", losses, rng=Seed(0, ("perplexity",)).numpy())

    def gains(self, better: State, worse: State) -> np.ndarray:
        """Return by how much ``better`` is better on each test row, (rows,): in right answers, or in nats a token."""
        if self.generative:
            gains: np.ndarray = self.lab.losses(worse, self.test) - self.lab.losses(better, self.test)
        else:
            gains = self.correct(better) - self.correct(worse)
        return gains


def trained_scene(bench: Bench, spec: SystemSpec, out: Path) -> Scene:
    """Return the scene of a federation that was trained into ``out``; raises UserError where it is damaged."""
    store = FederationStore(out, spec.key)
    defenses = spec.build_defenses()
    protocol = Protocol(store.transcript.facts, defenses)
    lab = Lab(bench.model(spec), bench.backbone.tokenizer, bench.start(spec, defenses), bench.memo)
    return Scene(spec, bench.tasks[spec.seed], protocol, store, lab)


@contextmanager
def naming(adapter: str) -> Iterator[None]:
    """Say which ``adapter`` it is under which the model gives no finite numbers."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{adapter}: {error}") from error
