"""How often an attack's interval lies above 0 where there is nothing: transcripts of pure noise of the right shapes.

    python -m benchmarks.noise_floor              # every attack but those that make their own transcript
    python -m benchmarks.noise_floor span ...     # some

A small federation on the made-up backbone is trained; then every tensor of every update and broadcast is replaced by
normal numbers of its own spread, anew in each try, and what the attack claims is judged against the truth.
No attack sees a transcript, so this is the control without one too: what is left is its prior. The intervals are of
95 %, so that one in 40 tries may lie above 0 by chance, and a try counts when any of its headlines does. The last
column says whether the attack tells anything of the transcript itself: where it does not, silence shows nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from benchmarks.scratch import scratch
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.measure import judge
from qlorabench.engines.pool import Pool
from qlorabench.engines.scene import Scene, trained_scene
from qlorabench.federation import wire
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.state import State
from qlorabench.plugins import registry
from qlorabench.scoring.score import Score
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare
from qlorabench.threats.attack import misfit
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import draw_challenge
from qlorabench.threats.claims import Goal
from qlorabench.threats.models import ThreatModel, ThreatSpec
from qlorabench.threats.prompts import draw_prompts
from qlorabench.threats.view import Broadcast, Update, View

HERE = Path()
OPINIONS = {
    "backbone": {"name": "toy"},
    "data": {"source": "toy", "max_length": 12, "test_rows": 60, "holdout_rows": 150},
    "clients": 3,
    "rows_per_client": 16,
    "lora": {"rank": 8, "alpha": 16, "targets": ["query", "key", "value"]},
    "training": {"rounds": 24, "local_steps": 1, "batch_size": 1, "optimizer": {"kind": "sgd", "lr": 0.3}},
}
SECRETS = {
    **OPINIONS,
    "backbone": {"name": "toy-lm"},
    "data": {"source": "toy", "max_length": 16, "test_rows": 60, "holdout_rows": 150},
    "objective": "language-modeling",
    "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "k_proj", "v_proj"]},
    "canaries": {"count": 12, "repetitions": 4, "digits": 3},
}
SEATS = ("server", "client", "end-user")
SLOW = {
    "gradient-matching": {"starts": 4, "steps": 40, "cycles": 2, "prior": None},
    "subspace-descent": {"steps": 60, "prior": None},
    "word-matching": {"steps": 30, "starts": 1, "rounds": 4, "prior": None},
    "attention-span": {"prior": None},
}
"""Attacks that search, with the budget that they get here; they are tried `FEW` times."""
MANY, FEW = 40, 10
GENERATIVE = ("extraction", "differential-score")
REST = (Capability.AGGREGATE_UPDATE, Capability.SERVER_ADAPTER)
"""What else follows from a transcript; withheld."""
OWN = ("a-stacking",)
"""Attacks that make their own transcript."""


def noisy(view: View, scene: Scene, seed: int) -> View:
    """Return ``view`` with every update and broadcast replaced by noise around what is public, sent as real bytes."""
    generator = torch.Generator().manual_seed(seed)
    protocol, start, coins = scene.protocol, scene.lab.start, Seed(seed, ("coins",))

    def like(state: State, around: State) -> State:
        shifts = {name: (value - around[name]).std() for name, value in state.items()}
        return {n: around[n] + shifts[n] * torch.randn(v.shape, generator=generator) for n, v in state.items()}

    def broadcast(sent: Broadcast) -> Broadcast:
        data = protocol.encode_broadcast(
            like(sent.state, start), round=sent.round, seed=coins.child("down", sent.round)
        )
        return Broadcast(sent.round, data, wire.from_bytes(data), protocol.decode_broadcast(data, round=sent.round))

    def update(sent: Update) -> Update:
        nothing = {name: torch.zeros_like(value) for name, value in sent.state.items()}
        own = coins.child("up", sent.round, sent.client)
        at = {"round": sent.round, "client": sent.client}
        data = protocol.encode_update(like(sent.state, nothing), **at, seed=own)
        return Update(sent.round, sent.client, data, protocol.decode_update(data, **at))

    makes: dict[Capability, Callable[[Any], Any]] = {
        Capability.BROADCASTS: lambda facet: tuple(map(broadcast, facet)),
        Capability.OTHERS_UPDATES: lambda facet: tuple(map(update, facet)),
        Capability.OWN_UPDATES: lambda facet: tuple(map(update, facet)),
    }
    facets = {c: makes[c](facet) if c in makes else facet for c, facet in view._facets.items() if c not in REST}
    if view.has(Capability.RELEASED_ADAPTER):
        sent = facets.get(Capability.BROADCASTS)
        facets[Capability.RELEASED_ADAPTER] = sent[-1].state if sent else like(view.released, start)
    return replace(view, _facets=facets)


def leaks(name: str, seat: ThreatModel, scene: Scene, number: int, *, noise: bool) -> bool:
    """Return whether a headline's interval lies above 0 in one try, on noise or on the transcript itself."""
    seed = Seed(number, ("noise",))
    challenge = draw_challenge(scene.task, insiders=1, most=32, seed=seed.child("challenge"))
    game = draw_prompts(scene.task.canaries, insiders=1, seed=seed.child("prompts"))
    view = scene.seen_by(seat, challenge, game)
    cls: Any = registry("attacks").load(name)
    attack = cls(cls.Config(**SLOW.get(name, {})))
    claim = attack.run(noisy(view, scene, number) if noise else view, seed.child("run").numpy())
    rows: list[Score] = judge(scene, claim, challenge, game, seed.child("judge"), seat.colluders, {})
    return any(row.headline and (row.leakage_low or 0.0) > 0 for row in rows)


def trained(name: str, out: Path) -> Scene:
    """Return the federation on which the attack ``name`` is tried, trained here if it was not before.

    An adapter is hidden only where broadcasts are quantized.
    """
    task = SECRETS if name in GENERATIVE else OPINIONS
    hides = registry("attacks").load(name).goal is Goal.ADAPTER  # type: ignore[attr-defined]
    defenses = (("quantized-broadcast", {"bits": 3}),) if hides else ()
    config = TaskConfig.model_validate(task)
    backbone = load_backbone(config.backbone, base=HERE, objective=config.objective)
    backbone.model.share_memory()
    prepared = prepare(config, load_data(config, base=HERE), backbone.tokenizer, seed=Seed(0))
    spec = SystemSpec(f"noise-{name in GENERATIVE}-{hides}", config, defenses, 0, HERE)
    with Pool(Bench, backbone, {0: prepared}, workers=1) as pool:
        ensure_trained(pool, spec, out)
    return trained_scene(Bench(backbone, {0: prepared}), spec, out)


def main() -> None:
    """Print the table."""
    attacks = registry("attacks")
    names = sys.argv[1:] or [name for name in attacks.names() if name not in OWN]
    seats = [ThreatSpec(name).resolve() for name in SEATS]
    table = Table("attack", "seat", "intervals above 0", "most that the level allows", "above 0 on the transcript")
    with scratch() as folder:
        for name in names:
            seat = next(seat for seat in seats if misfit(attacks.load(name), seat) is None)
            scene, count = trained(name, folder), FEW if name in SLOW else MANY
            above = sum(leaks(name, seat, scene, number, noise=True) for number in range(count))
            real = "yes" if leaks(name, seat, scene, 0, noise=False) else "no"
            row = (name, seat.label, f"{above} of {count}", str(int(binom.ppf(0.975, count, 0.025))), real)
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
    Console().print(table)


if __name__ == "__main__":
    main()
