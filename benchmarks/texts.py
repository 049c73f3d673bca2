"""Whole texts that *span* reads from a server's seat: full rank at batches of 1, 2 and 4, and rank 8 over 24 rounds.

    python -m benchmarks.texts                      # every setting
    python -m benchmarks.texts rounds minilm-1 ...  # some: rounds, or minilm or smollm2 with a batch of 1, 2 or 4
    python -m benchmarks.texts --batches 20 ...     # victim batches of a setting, 100 if absent

`rounds`: rank 8, both factors, SGD, clients with 16 reviews of at most 24 tokens in batches of 4, 24 rounds of one
step; a victim batch is a client. The others: adapters of full rank (r = d) on the query, one update of one step on one
batch of reviews of at most 20 tokens, as where DAGER has its figures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.attacks import seat
from qlorabench.attacks.span import Span, SpanConfig
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.measure import trained_scene
from qlorabench.engines.pool import Pool
from qlorabench.engines.run import default_workers
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.scoring.intervals import bootstrap, clopper_pearson
from qlorabench.scoring.text import reconstruction_scores
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare

HERE = Path()
WIDTHS = {"minilm": ("minilm-l6", 384, "query"), "smollm2": ("smollm2-135m", 576, "q_proj")}


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    name: str
    task: TaskConfig


def rounds(clients: int) -> Setting:
    """Return the federation of small batches over many rounds."""
    task = {
        "backbone": {"name": "minilm-l6"},
        "data": {"source": "rotten-tomatoes", "max_length": 24, "test_rows": 20, "holdout_rows": 20},
        "clients": clients,
        "rows_per_client": 16,
        "lora": {"rank": 8, "alpha": 16},
        "training": {"rounds": 24, "local_steps": 1, "batch_size": 4, "optimizer": {"kind": "sgd", "lr": 0.1}},
    }
    return Setting("r = 8, 16 texts in batches of 4, 24 rounds", TaskConfig.model_validate(task))


def full_rank(name: str, batch: int, clients: int) -> Setting:
    """Return the federation of one update of full rank; every client has one batch."""
    backbone, width, target = WIDTHS[name]
    generative = name == "smollm2"
    task = {
        "backbone": {"name": backbone},
        "objective": "language-modeling" if generative else "classification",
        "data": {"source": "rotten-tomatoes", "max_length": 20, "test_rows": 20, "holdout_rows": 20},
        "clients": clients,
        "rows_per_client": 4 * batch,  # a client draws a quarter of its rows at most
        "lora": {"rank": width, "alpha": 2 * width, "targets": [target]},
        "training": {"rounds": 1, "local_steps": 1, "batch_size": batch, "optimizer": {"kind": "sgd", "lr": 0.01}},
    }
    return Setting(f"{backbone}, r = d, batch of {batch}", TaskConfig.model_validate(task))


def settings(names: list[str], count: int) -> list[Setting]:
    """Return the settings ``names``, all where there are none, with ``count`` victim batches each."""
    every = {"rounds": rounds(count)}
    every |= {f"{name}-{batch}": full_rank(name, batch, count) for name in WIDTHS for batch in (1, 2, 4)}
    return [every[name] for name in names or every]


def measure(setting: Setting, out: Path) -> list[str]:
    """Train, attack, and return the line of the table."""
    backbone = load_backbone(setting.task.backbone, base=HERE, objective=setting.task.objective)
    backbone.model.share_memory()
    task = prepare(setting.task, load_data(setting.task, base=HERE), backbone.tokenizer, seed=Seed(0))
    spec = SystemSpec(setting.name.replace(" ", "-").replace("=", ""), setting.task, (), 0, HERE)
    with Pool(Bench, backbone, {0: task}, workers=default_workers()) as pool:
        ensure_trained(pool, spec, out)
    bench = Bench(backbone, {0: task})
    secrets = trained_scene(bench, spec, out).store.secrets
    view = seat(bench, spec, out, "server")
    start = time.perf_counter()
    claim = Span(SpanConfig()).run(view, np.random.default_rng(0))
    seconds = (time.perf_counter() - start) / setting.task.clients
    units, false = [], 0
    for said in claim.clients:
        drawn = {row for round in secrets.batches(said.client) for step in round for row in step}
        ids = [task.encoded.ids[row] for row in sorted(drawn)]
        true = [backbone.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
        scores = reconstruction_scores(true, said.texts)
        units.append([np.nanmean(scores.rouge1), np.nanmean(scores.rouge2), scores.exact.sum(), len(true)])
        false += len(said.texts) - int(scores.exact.sum())
    table = np.array(units)
    rng = np.random.default_rng(0)
    means = [bootstrap(100 * table[:, i], lambda rows: float(rows.mean()), rng=rng) for i in (0, 1)]
    exact = clopper_pearson(int(table[:, 2].sum()), int(table[:, 3].sum()))
    return [
        setting.name,
        f"{len(units)} / {int(table[:, 3].sum())}",
        *(f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]" for mean in means),
        f"{exact.value:.3f} [{exact.low:.3f}, {exact.high:.3f}]",
        str(false),
        f"{seconds:.1f}",
    ]


def main() -> None:
    """Print the table."""
    names, count = sys.argv[1:], 100
    if "--batches" in names:
        place = names.index("--batches")
        count = int(names[place + 1])
        del names[place : place + 2]
    table = Table("span", "batches / texts", "ROUGE-1", "ROUGE-2", "exact", "false texts", "s / client")
    with tempfile.TemporaryDirectory() as folder:
        for setting in settings(names, count):
            row = measure(setting, Path(folder))
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
