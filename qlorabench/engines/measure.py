"""Jobs that measure: utility of a system, and one attack from one seat, judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.engines.attacking import blamed, run_attack
from qlorabench.engines.null import control_of
from qlorabench.engines.scene import AttackSpec, Scene, naming, trained_scene
from qlorabench.errors import UserError
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.dropout import highest_rate
from qlorabench.federation.state import State
from qlorabench.federation.transcript import Transcript
from qlorabench.plugins import registry
from qlorabench.scoring.extraction import Hidden, judge_extraction
from qlorabench.scoring.intervals import bootstrap
from qlorabench.scoring.ranks import Matched
from qlorabench.scoring.reconstruction import Sentences, judge_reconstruction
from qlorabench.scoring.score import Score, from_interval
from qlorabench.scoring.utility import gain, learned
from qlorabench.scoring.verdicts import judge_adapter, judge_membership
from qlorabench.seeding import Seed
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import Challenge, draw_challenge
from qlorabench.threats.claims import AdapterClaim, Claim, ExtractionClaim, MembershipClaim, ReconstructionClaim
from qlorabench.threats.matching import Match, match, traits
from qlorabench.threats.prompts import ExtractionGame
from qlorabench.threats.view import View

_CONTROLS = 100
"""Held-out texts that a claim of reconstruction is held against for each client, as far as there are so many."""


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
        with naming(f"the {metric}'s adapter after the last round"):
            gains = _gains(scene, metric, state)
            found = scene.utility(metric, state)
        control = max(untrained, default=None)
        rows.append(replace(found, control=control, headline=True, learned=learned(gains)))
        gained += gains
    return [*rows, backbone, *majority, *gained, *_epsilon(scene), _dropout(scene)]


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


def _dropout(scene: Scene) -> Score:
    """Return the highest rate at which clients drop out while they train, a public fact."""
    setting = scene.protocol.facts.training.dropout
    note = {"off": "dropout is off", "model": "the backbone's own"}.get(str(setting), "one rate everywhere")
    return Score("dropout", highest_rate(scene.lab.model, setting), note=note)


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
    """Job: run one attack on what its seat observes, and judge what it claims.

    A membership attack is run once more on what was not trained on the candidates, as its control; what it asks then
    does not count as its queries.
    """
    scene = trained_scene(bench, spec, out)
    seed = Seed(spec.seed, ("attack", attack.threat.label, attack.label))
    challenge = draw_challenge(
        scene.task,
        insiders=attack.insiders,
        most=attack.candidates,
        seed=Seed(spec.seed, ("challenge",)),
        column=scene.column,
    )
    game = scene.game(insiders=attack.insiders)
    crafted = scene.crafted()
    view = scene.seen_by(attack.threat, challenge, game, crafted=crafted)
    cls: Any = registry("attacks", base=spec.base).load(attack.name)
    if Capability.CANDIDATES in cls.requires and not len(challenge.rows):
        raise ValueError("no client has a row whose label a held-out row has too: raise data.holdout_rows")

    def run(view: View) -> Claim:
        asked = len(view.candidates) if view.has(Capability.CANDIDATES) else 0
        return run_attack(cls, attack.config, view, seed.child("run").numpy(), candidates=asked)

    lab = scene.lab
    with lab.queries.counting(lab.model):
        claim = run(view)
    asked = Score("queries", float(lab.queries.rows + crafted.requests), note="rows through the model, broadcasts sent")
    with blamed(cls):
        rows = judge(
            scene,
            claim,
            challenge,
            game,
            seed.child("judge"),
            attack.threat.colluders,
            crafted.drawn,
            control=lambda: control_of(bench, scene, out, attack, challenge, run),
        )
    return [*rows, asked]


def judge(
    scene: Scene,
    claim: Claim,
    challenge: Challenge,
    game: ExtractionGame,
    seed: Seed,
    insiders: int,
    crafted: Mapping[int, set[int]],
    *,
    control: Callable[[], tuple[Matched, str]] | None = None,
) -> list[Score]:
    """Judge a claim of a seat that the first ``insiders`` clients sit in.

    ``crafted`` has the rows that clients drew in a malicious server's own run. ``control`` is asked, where membership
    is claimed, what the attack says of candidates that were not trained on; without it the control is chance.
    """
    rng = seed.numpy()
    if isinstance(claim, MembershipClaim):
        matched, note = control() if control else (Matched(challenge.pairs, challenge.strata), challenge.uncontrolled)
        return judge_membership(claim, challenge.members, rng=rng, matched=matched, note=note)
    if isinstance(claim, AdapterClaim):
        return _judge_adapter(scene, claim, rng)
    if isinstance(claim, ExtractionClaim):
        return judge_extraction(claim, _hidden(game), rng=rng)
    if isinstance(claim, ReconstructionClaim):
        clients = range(scene.protocol.facts.clients)
        drawn = [_drawn(scene, client, crafted.get(client, set())) for client in clients]
        truths = [_sentences(scene, rows) for rows in drawn]
        controls = [_held_out(scene, rows, seed.child("control", i)) for i, rows in enumerate(drawn)]
        return judge_reconstruction(claim, truths, controls, rng=rng, insiders=insiders)
    raise UserError(f"an attack claimed a {type(claim).__name__}; a claim is one of those in qlorabench.threats.claims")


def _judge_adapter(scene: Scene, claim: AdapterClaim, rng: np.random.Generator) -> list[Score]:
    server, held = scene.final_server, scene.final_broadcast
    gap = from_interval("utility_gap", bootstrap(scene.gains(server, held), lambda g: float(g.mean()), rng=rng))
    rows = judge_adapter(
        claim,
        truth=server,
        broadcast=held,
        public=scene.lab.start,
        scaling=scene.lab.model.scaling,
        gap=gap,
        rng=rng,
    )
    with naming("the adapter that the attack claims"):
        recovered = scene.utility("recovered", dict(claim.state))
    return [*rows, replace(recovered, control=scene.utility("held", held).value)]


def _hidden(game: ExtractionGame) -> list[Hidden]:
    pairs = zip(game.prompts, game.canaries, strict=True)
    return [Hidden(c.secret, c.inserted, p.references, len(p.alphabet) ** p.length) for p, c in pairs]


def _drawn(scene: Scene, client: int, crafted: set[int]) -> np.ndarray:
    """Return the rows that ``client`` drew in any round of the federation, or among ``crafted``, each once."""
    drawn = {row for round in scene.store.secrets.batches(client) for step in round for row in step}
    return np.array(sorted(drawn | crafted), dtype=np.int64)


def _held_out(scene: Scene, rows: np.ndarray, seed: Seed) -> list[Sentences]:
    """Return lots of held-out texts, each like the client's ``rows`` in number and label, no text in two.

    Where the partition deals groups to clients, texts of the same groups come first: words of a label, or of a film,
    are no words of a client. There are so many lots that they hold `_CONTROLS` texts where they can, for the chance of
    a few texts to be claimed would else be told from as few others; a lot that is less like the rows than the first one
    is not taken. The first one says in what it differs.
    """
    free = seed.numpy().permutation(scene.task.holdout)
    if not len(rows) or not len(free):
        return [_sentences(scene, free[:0])]
    shared = [*traits(scene.task, column=scene.column), lambda row: None]
    lots: list[list[Match]] = []
    while len(lots) * len(rows) < _CONTROLS:
        lot = match(rows, free, shared, most=len(rows))
        if lots and (len(lot) < len(lots[0]) or _unlike(lot) > _unlike(lots[0])):
            break
        lots.append(lot)
        free = free[~np.isin(free, [pair.outside for pair in lot])]
    sentences = [_sentences(scene, np.array([pair.outside for pair in lot], dtype=np.int64)) for lot in lots]
    names = ["label"] if len(shared) == 2 else [scene.column or "", "label"]
    return [replace(sentences[0], note=_difference(lots[0], names)), *sentences[1:]]


def _unlike(lot: list[Match]) -> int:
    return sum(pair.level for pair in lot)


def _difference(lot: list[Match], names: list[str]) -> str:
    """Say in what the texts of a lot are not like those that they stand for; ``names`` are those of the traits."""
    loose = {name: sum(pair.level > level for pair in lot) for level, name in enumerate(names)}
    said = [f"{name} of {count} of {len(lot)} control texts" for name, count in loose.items() if count]
    return f"not controlled: {', '.join(said)}" if said else ""


def _sentences(scene: Scene, rows: np.ndarray) -> Sentences:
    special = set(scene.lab.tokenizer.all_special_ids)
    ids = [scene.task.encoded.ids[row] for row in rows]
    pairs = [tuple((i, int(t)) for i, t in enumerate(row) if int(t) not in special) for row in ids]
    texts = [scene.lab.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    return Sentences(tuple(pairs), tuple(texts))
