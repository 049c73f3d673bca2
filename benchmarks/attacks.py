"""What the attacks reach where theory says that they must, and where it says that they cannot.

    python -m benchmarks.attacks

- span, both factors: every client of a plain federation (16 review texts each, batches of 4, 4 local steps, 24
  rounds, rank 8 on query, key, value, SGD): distinct words at the attack's own threshold. Training that goes
  nowhere hides words: the frozen head at rate 0.5 collapses in its first round, and is there to show that.
- span on noise: Gaussian updates of the same shapes and norms in place of the clients'.
- span, frozen A: one update of one short text with fewer than rank / 2 distinct tokens.
- smoothing: stochastic rounding and a server that has converged (the rate falls to zero).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.scratch import scratch
from qlorabench.attacks.smoothing import Smoothing, SmoothingConfig
from qlorabench.attacks.span import Span, SpanConfig
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.pool import Pool
from qlorabench.engines.run import default_workers
from qlorabench.engines.scene import trained_scene
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.facts import PublicFacts
from qlorabench.scoring.score import Score
from qlorabench.scoring.verdicts import judge_adapter
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import Backbone, load_backbone
from qlorabench.tasks.task import PreparedTask, load_data, prepare
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import draw_challenge
from qlorabench.threats.models import ThreatSpec
from qlorabench.threats.prompts import draw_prompts
from qlorabench.threats.view import View

HERE = Path()
SPAN = {
    "backbone": {"name": "minilm-l6"},
    "data": {"source": "rotten-tomatoes", "max_length": 32, "test_rows": 100, "holdout_rows": 100},
    "clients": 4,
    "rows_per_client": 16,
    "head": {"train": "shared"},
    "training": {"rounds": 24, "local_steps": 4, "batch_size": 4, "optimizer": {"kind": "sgd", "lr": 0.5}},
}
SMOOTHING = {
    **SPAN,
    "rows_per_client": 64,
    "training": {
        "rounds": 40,
        "local_steps": 1,
        "batch_size": 8,
        "optimizer": {"kind": "sgd", "lr": 0.2, "schedule": "cosine"},
    },
}


def seat(bench: Bench, spec: SystemSpec, out: Path, threat: str) -> View:
    """Return what one seat observes of a trained federation."""
    scene = trained_scene(bench, spec, out)
    model = ThreatSpec(threat).resolve()
    challenge = draw_challenge(scene.task, insiders=model.colluders, most=10, seed=Seed(0))
    return scene.seen_by(model, challenge, draw_prompts((), insiders=0, seed=Seed(0)))


def span_words(view: View, task: PreparedTask, *, setting: str) -> list[tuple[str, int, int, int]]:
    """Return (setting and client, true words, claimed, hits) for every client."""
    special = set(view.lab.tokenizer.all_special_ids)
    claim = Span(SpanConfig()).run(view, np.random.default_rng(0))
    rows = []
    for said in claim.clients:
        true = {int(t) for ids in task.client(said.client).ids for t in ids} - special
        rows.append((f"{setting}: {said.client}", len(true), len(said.tokens), len(said.tokens & true)))
    return rows


def noise_claims(view: View, *, draws: int) -> int:
    """Return how many of ``draws`` views with Gaussian updates make the attack claim anything."""
    found = 0
    for draw in range(draws):
        rng = torch.Generator().manual_seed(draw)
        noisy = tuple(
            replace(u, state={n: v.std() * torch.randn(v.shape, generator=rng) for n, v in u.state.items()})
            for u in view.updates
            if u.client == 0
        )
        facts = PublicFacts(**{**vars(view.facts), "client_rows": view.facts.client_rows[:1]})
        blank = replace(view, facts=facts, _facets={**view._facets, Capability.OTHERS_UPDATES: noisy})
        claim = Span(SpanConfig()).run(blank, np.random.default_rng(draw))
        found += any(said.tokens for said in claim.clients)
    return found


def smoothing_gain(bench: Bench, spec: SystemSpec, out: Path) -> tuple[str, Score]:
    """Return how the adapter was estimated, and the share of quantization error that is gone."""
    scene = trained_scene(bench, spec, out)
    claim = Smoothing(SmoothingConfig()).run(seat(bench, spec, out, "client"), np.random.default_rng(0))
    rows = judge_adapter(
        claim,
        truth=scene.final_server,
        broadcast=scene.final_broadcast,
        public=scene.lab.start,
        scaling=scene.lab.model.scaling,
        gap=Score("utility_gap", None),
        rng=np.random.default_rng(0),
    )
    return claim.note, next(row for row in rows if row.metric == "error_removed")


def short_texts(backbone: Backbone, task: TaskConfig, *, most: int) -> PreparedTask:
    """Return a task whose clients hold one text each, of at most ``most`` tokens, special ones included."""
    data = load_data(task, base=HERE)
    prepared = prepare(task, data, backbone.tokenizer, seed=Seed(0))
    short = np.flatnonzero(prepared.encoded.lengths <= most)[: task.clients]
    return replace(prepared, client_rows=tuple(np.array([row]) for row in short))


def _variant(task: TaskConfig, head: str, lr: float) -> TaskConfig:
    optimizer = task.training.optimizer.model_copy(update={"lr": lr})
    training = task.training.model_copy(update={"optimizer": optimizer})
    return task.model_copy(update={"head": task.head.model_copy(update={"train": head}), "training": training})


def main() -> None:
    """Train, attack and print."""
    task, smooth = TaskConfig.model_validate(SPAN), TaskConfig.model_validate(SMOOTHING)
    single = TaskConfig.model_validate(
        {**SPAN, "rows_per_client": 1, "training": {**SPAN["training"], "rounds": 1, "local_steps": 1}}  # type: ignore[dict-item]
    )
    backbone = load_backbone(task.backbone, base=HERE)
    backbone.model.share_memory()
    tasks = {
        0: prepare(task, load_data(task, base=HERE), backbone.tokenizer, seed=Seed(0)),
        1: prepare(smooth, load_data(smooth, base=HERE), backbone.tokenizer, seed=Seed(0)),
        2: short_texts(backbone, single, most=5),
    }
    heads = {
        f"{head} head, rate {lr}": SystemSpec(f"span-{head}-{lr}", _variant(task, head, lr), (), 0, HERE)
        for head, lr in (("shared", 0.5), ("frozen", 0.1), ("frozen", 0.5))
    }
    frozen = SystemSpec("frozen", single, (("frozen-a", {}),), 2, HERE)
    rounded = {
        bits: SystemSpec(
            f"q{bits}", smooth, (("quantized-broadcast", {"bits": bits, "rounding": "stochastic"}),), 1, HERE
        )
        for bits in (2, 4, 8)
    }
    words = Table("span (words)", "true", "claimed", "recall", "precision")
    gains = Table("smoothing", "estimator", "error removed")
    with scratch() as out:
        with Pool(Bench, backbone, tasks, workers=default_workers()) as pool:
            for spec in (*heads.values(), frozen, *rounded.values()):
                ensure_trained(pool, spec, out)
        bench = Bench(backbone, tasks)
        views = {setting: seat(bench, spec, out, "server") for setting, spec in heads.items()}
        rows = [row for setting, view in views.items() for row in span_words(view, tasks[0], setting=setting)]
        rows += span_words(seat(bench, frozen, out, "server"), tasks[2], setting="frozen A, one update")
        view = next(iter(views.values()))
        for name, true, claimed, hits in rows:
            words.add_row(
                name, str(true), str(claimed), f"{hits / true:.3f}", f"{hits / claimed:.3f}" if claimed else "-"
            )
        words.add_row("noise, 40 draws", "0", f"claims in {noise_claims(view, draws=40)} draws", "-", "-")
        for bits, spec in rounded.items():
            note, score = smoothing_gain(bench, spec, out)
            gains.add_row(f"{bits} bits, stochastic", note, f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
    Console().print(words, gains)


if __name__ == "__main__":
    main()
