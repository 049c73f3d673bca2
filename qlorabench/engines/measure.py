"""Jobs that measure: utility of a system, and one attack from one seat, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.engines.attacking import blamed, run_attack
from qlorabench.errors import UserError
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import State
from qlorabench.federation.transcript import FederationStore, Transcript
from qlorabench.plugins import registry
from qlorabench.scoring.extraction import Hidden, judge_extraction
from qlorabench.scoring.intervals import bootstrap
from qlorabench.scoring.reconstruction import Sentences, judge_reconstruction
from qlorabench.scoring.score import Score, from_interval
from qlorabench.scoring.utility import accuracy, gain, learned, perplexity
from qlorabench.scoring.verdicts import judge_adapter, judge_membership
from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import Encoded
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.claims import AdapterClaim, Claim, ExtractionClaim, MembershipClaim, ReconstructionClaim
from qlorabench.threats.crafting import CraftedRun
from qlorabench.threats.lab import Lab
from qlorabench.threats.models import ThreatModel
from qlorabench.threats.observe import Challenge, draw_challenge, observe
from qlorabench.threats.prompts import ExtractionGame, draw_prompts
from qlorabench.threats.view import View

_CONTROLS = 100
"""Held-out texts that a claim of reconstruction is held against for each client, as far as there are so many."""


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


@dataclass(frozen=True)
class Scene:
    """What the judge of one trained federation has at hand; attacks see none of it but the lab."""

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
    def generative(self) -> bool:
        """Whether the model predicts tokens, so that utility is perplexity."""
        return self.lab.model.objective == "language-modeling"

    def seen_by(
        self,
        threat: ThreatModel,
        challenge: Challenge,
        game: ExtractionGame,
        *,
        by_examples: bool = False,
        crafted: CraftedRun | None = None,
    ) -> View:
        """Return what the seat of ``threat`` observes; ``by_examples`` is whether clients weigh as their rows do."""
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
    return Scene(bench.tasks[spec.seed], protocol, store, lab)


def measure_utility(bench: Bench, spec: SystemSpec, out: Path) -> list[Score]:
    """Job: accuracy (or perplexity) of the server's adapter and of what clients hold, against no training.

    A system has learned where its paired gains over the bare backbone and the majority class are above zero.
    """
    scene = trained_scene(bench, spec, out)
    backbone = scene.utility("backbone", scene.lab.bare)
    majority = [] if scene.generative else [Score("accuracy_majority", scene.task.majority, n=len(scene.task.test))]
    untrained = [score.value for score in (backbone, *majority) if score.value is not None]
    rows, gained = [], []
    for metric, state in (("server", scene.final_server), ("client", scene.final_broadcast)):
        gains = _gains(scene, metric, state)
        better = learned(gains)
        control = max(untrained, default=None)
        rows.append(replace(scene.utility(metric, state), control=control, headline=True, learned=better))
        gained += gains
    return [*rows, backbone, *majority, *gained, *_epsilon(scene)]


def _gains(scene: Scene, metric: str, state: State) -> list[Score]:
    """Return by how much ``state`` is better than the bare backbone, and than the majority class of a classifier."""
    rng = Seed(0, ("gains",)).numpy()
    rows = [gain(f"gain_{metric}_backbone", scene.gains(state, scene.lab.bare), rng=rng)]
    if not scene.generative:
        rows.append(gain(f"gain_{metric}_majority", scene.correct(state) - scene.task.guessed, rng=rng))
    return rows


def _epsilon(scene: Scene) -> list[Score]:
    facts = [d.facts for d in scene.protocol.facts.defenses if "clients" in d.facts and "delta" in d.facts]
    clients = [client["epsilon"] for f in facts for client in f["clients"]]
    if not clients:
        return []
    note = f"largest of {len(clients)} clients, sample level, delta {facts[0]['delta']:g}"
    return [Score("epsilon", float(max(clients)), n=len(clients), note=note)]


def measure_bandwidth(transcript: Transcript) -> list[Score]:
    """Return bytes a client receives and sends in a round (means over rounds), and all bytes together."""
    facts = transcript.facts
    down, up = (np.array([m.bytes for m in transcript.select(d)], float) for d in ("down", "up"))
    total = down.sum() * facts.clients + up.sum()
    return [
        Score(
            "bytes_down_client_round",
            float(down.mean()),
            float(down.min()),
            float(down.max()),
            len(down),
            headline=True,
        ),
        Score("bytes_up_client_round", float(up.mean()), float(up.min()), float(up.max()), len(up), headline=True),
        Score("bytes_total", float(total), n=len(down) * facts.clients + len(up), headline=True),
    ]


def measure_leakage(bench: Bench, spec: SystemSpec, out: Path, attack: AttackSpec) -> list[Score]:
    """Job: run one attack on what its seat observes, and judge what it claims."""
    scene = trained_scene(bench, spec, out)
    seed = Seed(spec.seed, ("attack", attack.threat.label, attack.label))
    challenge = draw_challenge(
        scene.task,
        insiders=attack.insiders,
        most=attack.candidates,
        seed=Seed(spec.seed, ("challenge",)),
    )
    game = draw_prompts(scene.task.canaries, insiders=attack.insiders, seed=Seed(spec.seed, ("challenge", "prompts")))
    by_examples = spec.task.training.weighting == "examples"
    scene.lab.mount({})  # the model is the worker's: nothing may be left in it of what the last job looked at
    crafted = CraftedRun(
        scene.lab.model, scene.protocol, scene.task, dict(scene.lab.start), spec.random.child("crafted")
    )
    view = scene.seen_by(attack.threat, challenge, game, by_examples=by_examples, crafted=crafted)
    cls: Any = registry("attacks", base=spec.base).load(attack.name)
    lab = scene.lab
    with lab.queries.counting(lab.model):
        claim = run_attack(cls, attack.config, view, seed.child("run").numpy(), candidates=len(challenge.members))
    asked = Score("queries", float(lab.queries.rows + crafted.requests), note="rows through the model, broadcasts sent")
    with blamed(cls):
        rows = judge(scene, claim, challenge, game, seed.child("judge"), attack.threat.colluders, crafted.drawn)
    return [*rows, asked]


def judge(
    scene: Scene,
    claim: Claim,
    challenge: Challenge,
    game: ExtractionGame,
    seed: Seed,
    insiders: int,
    crafted: Mapping[int, set[int]],
) -> list[Score]:
    """Judge a claim of a seat that the first ``insiders`` clients sit in.

    ``crafted`` has the rows that clients drew in a malicious server's own run.
    """
    rng = seed.numpy()
    if isinstance(claim, MembershipClaim):
        return judge_membership(claim, challenge.members, rng=rng)
    if isinstance(claim, AdapterClaim):
        return _judge_adapter(scene, claim, rng)
    if isinstance(claim, ExtractionClaim):
        return judge_extraction(claim, _hidden(game), rng=rng)
    if isinstance(claim, ReconstructionClaim):
        clients = range(scene.protocol.facts.clients)
        truths = [_trained_on(scene, client, crafted.get(client, set())) for client in clients]
        controls = [_held_out(scene, len(t.texts), seed.child("control", i)) for i, t in enumerate(truths)]
        return judge_reconstruction(claim, truths, controls, rng=rng, insiders=insiders)
    raise UserError(f"an attack claimed a {type(claim).__name__}; a claim is one of those in qlorabench.threats.claims")


def _judge_adapter(scene: Scene, claim: AdapterClaim, rng: np.random.Generator) -> list[Score]:
    server, held = scene.final_server, scene.final_broadcast
    gap = from_interval("utility_gap", bootstrap(scene.gains(server, held), lambda g: float(g.mean()), rng=rng))
    recovered = scene.utility("recovered", dict(claim.state))
    rows = judge_adapter(
        claim,
        truth=server,
        broadcast=held,
        public=scene.lab.start,
        scaling=scene.lab.model.scaling,
        gap=gap,
        rng=rng,
    )
    return [*rows, replace(recovered, control=scene.utility("held", held).value)]


def _hidden(game: ExtractionGame) -> list[Hidden]:
    pairs = zip(game.prompts, game.canaries, strict=True)
    return [Hidden(c.secret, c.inserted, p.references, len(p.alphabet) ** p.length) for p, c in pairs]


def _trained_on(scene: Scene, client: int, crafted: set[int]) -> Sentences:
    """Return the sentences that ``client`` drew in any round of the federation, or among ``crafted``."""
    drawn = {row for round in scene.store.secrets.batches(client) for step in round for row in step}
    return _sentences(scene, np.array(sorted(drawn | crafted), dtype=np.int64))


def _held_out(scene: Scene, count: int, seed: Seed) -> list[Sentences]:
    """Return lots of ``count`` held-out texts each, no text in two, so many that they hold `_CONTROLS` where they can.

    The chance of a few texts to be claimed would else be told from as few others.
    """
    rows = seed.numpy().permutation(scene.task.holdout)
    size = max(1, min(count, len(rows)))
    lots = max(1, min(-(-_CONTROLS // size), len(rows) // size))
    return [_sentences(scene, rows[i * size : (i + 1) * size][:count]) for i in range(lots)]


def _sentences(scene: Scene, rows: np.ndarray) -> Sentences:
    special = set(scene.lab.tokenizer.all_special_ids)
    ids = [scene.task.encoded.ids[row] for row in rows]
    pairs = [tuple((i, int(t)) for i, t in enumerate(row) if int(t) not in special) for row in ids]
    texts = [scene.lab.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    return Sentences(tuple(pairs), tuple(texts))
