"""Reconstruction by a server that chooses the factor A: the same batch seen through many of them, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import State
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._dictionary import Dictionary, read_dictionary
from ._evidence import find_projected_pairs
from ._observed import first_modules
from ._reading import Reading
from ._spelling import client_texts
from ._stacks import SAME, Shot, difference, lenses, placed, shots, stack

Answer = Mapping[str, Shot]
"""What one broadcast gave, by module."""


class AStackingConfig(AttackConfig):
    """What is sent, and the threshold of a claim."""

    stacks: int = Field(default=4, ge=1, le=64, description="factors A sent; no more than fit into the model's width")
    gain: float = Field(
        default=1e-3, gt=0, le=100, description="norm of A against its usual start; small keeps local steps alike"
    )
    drift: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="0 sends factors of its own making; above, a patient server sends the protocol's start, and then "
        "that start turned by this share of its norm",
    )
    residue: float = Field(
        default=1e-9, ge=0, le=1, description="size of an element of the B that a patient server sends"
    )
    false_alarm: float = Field(default=1e-6, gt=0, lt=1, description="false claims expected of a client by chance")


@dataclass(frozen=True)
class _Bench:
    """What all clients are read with."""

    dictionary: Dictionary
    decoy: Dictionary
    modules: list[str]
    first: int | None
    """Token that opens every text, if the tokenizer has one."""


class AStacking(Attack[AStackingConfig]):
    """A malicious server sends B = 0 with one A after the other, and stacks what comes back.

    While B = 0 the model's output does not depend on A, so the gradients D = dL/dY are the same for the same batch
    whatever A is, and a client's update of B is -lr s D^T X A^T. Updates under A_1 ... A_k, side by side, are D^T X
    [A_1; ...; A_k]^T: rank r k in place of r, so that T < r k tokens are read as `span` reads T < r under a frozen A.

    - Several local steps move B off zero. A small ``gain`` g makes that harmless: A and B are of order g, so the
      output changes by g^2, and every step stays linear in the A that was sent.
    - Entries of A are plus or minus one number, which every blockwise codec of a broadcast keeps.
    - It needs a client that trains on the same batch again: one whose batch is all it has. The first A is sent twice;
      where the replies differ by more than noise, each is read alone, which is the limit T < r again.
    - Every A costs a round, and the client is gone after those of the federation.
    - A client that checks its broadcasts may refuse. ``drift`` makes a server that passes `committed-start`; its A has
      the size of the protocol's start, so that clients of several local steps are out of its reach.
    """

    name: ClassVar[str] = "a-stacking"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = AStackingConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.CHOSEN_BROADCASTS})
    paper: ClassVar[str] = "no paper; the span check of Petrov et al., DAGER, NeurIPS 2024, under chosen broadcasts"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that A does not travel, or that an adaptive optimizer hides the span."""
        if facts.defense("frozen-a") is not None:
            return "A does not travel: clients hold it from a public seed"
        if facts.training.optimizer.kind == "adamw":
            return "AdamW rescales every element of the update, so its rows leave the span of the inputs"
        return None

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return what the replies of every client show."""
        dictionary = read_dictionary(view.lab.model.encoder.get_base_model(), positions=view.facts.max_length)
        if dictionary is None:
            return ReconstructionClaim((), note="the embeddings are not words plus positions under a LayerNorm")
        width, travelling = dictionary.words.shape[1], set(view.facts.travelling.names)
        modules = [m for m in first_modules(view.facts, width=width) if {f"{m}.A", f"{m}.B"} <= travelling]
        if not modules:
            return ReconstructionClaim((), note="no adapter that reads the embeddings travels whole")
        first = getattr(view.lab.tokenizer, "cls_token_id", None)
        bench = _Bench(dictionary, dictionary.decoy(rng.permutation(width)), modules, first)
        clients = range(view.colluders, view.facts.clients)
        return ReconstructionClaim(tuple(self._client(view, bench, client, rng) for client in clients))

    def _client(self, view: View, bench: _Bench, client: int, rng: np.random.Generator) -> ClientTexts:
        answers: list[Answer] = []
        refused = ""
        for state in self._broadcasts(view, rng):
            got = view.crafted.send(state, client=client)
            if got.update is None:
                refused = f"the client refused broadcast {got.broadcast.round}"
                break
            answers.append(shots(view.facts, got, bench.modules))
        reading = self._read(bench, answers)
        note = "; ".join(part for part in (refused, reading.note) if part)
        return client_texts(client, replace(reading, note=note), view.lab.tokenizer)

    def _broadcasts(self, view: View, rng: np.random.Generator) -> list[State]:
        """Return what a client gets: the first factor twice, the others once."""
        rounds, width = view.crafted.rounds, max(spec.shape[1] for spec in view.facts.travelling.only("A"))
        count = max(1, min(self.config.stacks, width // view.facts.lora.rank, rounds - 1))
        start = {name: view.lab.start[name] for name in view.facts.travelling.names}
        if self.config.drift:
            still, turns = (0.0, self.config.residue), (self.config.drift, self.config.residue)
            plan = [(0.0, 0.0), still, *[turns] * (count - 1)]
            return [_turned(start, drift, residue, rng) for drift, residue in plan[:rounds]]
        fresh = [_reset(start, self.config.gain, rng) for _ in range(count)]
        return [fresh[0], *fresh][:rounds]

    def _read(self, bench: _Bench, answers: Sequence[Answer]) -> Reading:
        """Read the answers side by side where the client used one batch, else each alone."""
        if not answers:
            return Reading()
        gap = (
            max((difference(answers[0][m], answers[1][m]) for m in bench.modules), default=0.0) if answers[1:] else 0.0
        )
        whole = {m: stack([answer[m] for answer in answers[1:] or answers]) for m in bench.modules}
        parts = [whole] if gap < SAME else answers
        read = [self._part(bench, part, false_alarm=self.config.false_alarm / len(parts)) for part in parts]
        words = frozenset[int]().union(*(reading.words for reading in read))
        places = frozenset[tuple[int, int]]().union(*(reading.places for reading in read))
        how = f"{len(answers)} answers" if gap < SAME else f"the batch changes: answers lie {gap:.2g} noises apart"
        why = sorted({reading.note for reading in read if reading.note})
        return Reading(words, places, tuple(reading.places for reading in read), "; ".join([how, *why]))

    def _part(self, bench: _Bench, part: Answer, *, false_alarm: float) -> Reading:
        views = lenses(part, dictionary=bench.dictionary, decoy=bench.decoy, first=bench.first)
        found = find_projected_pairs(views, false_alarm=false_alarm)
        if not len(found.items):
            return Reading(note=found.why)
        places = placed(found.items, views)
        return Reading(frozenset(found.items[:, 0].tolist()), frozenset(map(tuple, places.tolist())))


def _reset(start: State, gain: float, rng: np.random.Generator) -> State:
    """Return ``start`` with every B zero and every A of signs, its rows ``gain`` times as long as a usual start's."""
    state = {name: torch.zeros_like(value) if name.endswith(".B") else value for name, value in start.items()}
    for name in (name for name in start if name.endswith(".A")):
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], tuple(start[name].shape))).float()
        state[name] = signs * (gain / (3 * signs.shape[1]) ** 0.5)
    return state


def _turned(start: State, drift: float, residue: float, rng: np.random.Generator) -> State:
    """Return ``start`` with every A moved by ``drift`` of its norm, and every B off zero by ``residue`` an element."""
    state = dict(start)
    for name, value in start.items():
        noise = torch.from_numpy(rng.normal(size=tuple(value.shape))).float()
        if name.endswith(".A"):
            state[name] = value + noise * (drift * value.norm() / noise.norm())
        elif name.endswith(".B"):
            state[name] = value + residue * noise
    return state
