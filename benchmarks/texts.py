"""Whole texts that *span* reads from a server's seat: full rank at batches of 1, 2 and 4, and rank 8 over 24 rounds.

    python -m benchmarks.texts                      # every setting
    python -m benchmarks.texts rounds minilm-1 ...  # some: rounds, or minilm or smollm2 with a batch of 1, 2 or 4
    python -m benchmarks.texts --batches 20 ...     # victim batches of a setting, 100 if absent

Victims are trained in federations of twenty, each with seeds and texts of its own. `rounds`: rank 8, both factors, SGD,
clients with 16 reviews of at most 24 tokens in batches of 4, 24 rounds of one step. The others: adapters of full rank
(r = d) on the query, one update of one step on one batch of reviews of at most 20 tokens, as where DAGER has its
figures.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.attacks import seat
from benchmarks.scratch import scratch
from qlorabench.attacks.span import Span, SpanConfig
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.pool import Pool
from qlorabench.engines.run import default_workers
from qlorabench.engines.scene import trained_scene
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.scoring.intervals import bootstrap, clopper_pearson
from qlorabench.scoring.text import reconstruction_scores
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare
from qlorabench.threats.claims import ClientTexts

HERE = Path()
PART = 20
"""Clients of one federation: updates of full rank of more than that crowd the memory."""
WIDTHS = {"minilm": ("minilm-l6", 384, "query"), "smollm2": ("smollm2-135m", 576, "q_proj")}


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    name: str
    task: TaskConfig
    victims: int

    @property
    def parts(self) -> list[TaskConfig]:
        """The task with as many clients as one federation has, for each federation."""
        counts = [min(PART, self.victims - start) for start in range(0, self.victims, PART)]
        return [self.task.model_copy(update={"clients": count}) for count in counts]


@dataclass(frozen=True)
class Score:
    """What was read of one victim."""

    rouge1: float
    rouge2: float
    exact: int
    texts: int
    false: int


def rounds(victims: int) -> Setting:
    """Return the federation of small batches over many rounds."""
    task = {
        "backbone": {"name": "minilm-l6"},
        "data": {"source": "rotten-tomatoes", "max_length": 24, "test_rows": 20, "holdout_rows": 20},
        "rows_per_client": 16,
        "lora": {"rank": 8, "alpha": 16},
        "training": {"rounds": 24, "local_steps": 1, "batch_size": 4, "optimizer": {"kind": "sgd", "lr": 0.1}},
    }
    return Setting("r = 8, 16 texts in batches of 4, 24 rounds", TaskConfig.model_validate(task), victims)


def full_rank(name: str, batch: int, victims: int) -> Setting:
    """Return the federation of one update of full rank; every client is a victim with one batch."""
    backbone, width, target = WIDTHS[name]
    generative = name == "smollm2"
    task = {
        "backbone": {"name": backbone},
        "objective": "language-modeling" if generative else "classification",
        "data": {"source": "rotten-tomatoes", "max_length": 20, "test_rows": 20, "holdout_rows": 20},
        "rows_per_client": 4 * batch,  # a client draws a quarter of its rows at most
        "lora": {"rank": width, "alpha": 2 * width, "targets": [target]},
        "training": {"rounds": 1, "local_steps": 1, "batch_size": batch, "optimizer": {"kind": "sgd", "lr": 0.01}},
    }
    return Setting(f"{backbone}, r = d, batch of {batch}", TaskConfig.model_validate(task), victims)


def settings(names: list[str], count: int) -> list[Setting]:
    """Return the settings ``names``, all where there are none, with ``count`` victim batches each."""
    every = {"rounds": rounds(count)}
    every |= {f"{name}-{batch}": full_rank(name, batch, count) for name in WIDTHS for batch in (1, 2, 4)}
    return [every[name] for name in names or every]


def measure(setting: Setting, out: Path) -> list[str]:
    """Train, attack, and return the line of the table."""
    backbone = load_backbone(setting.task.backbone, base=HERE, objective=setting.task.objective)
    backbone.model.share_memory()
    scores, seconds = [], 0.0
    for seed, config in enumerate(setting.parts):
        task = prepare(config, load_data(config, base=HERE), backbone.tokenizer, seed=Seed(seed))
        spec = SystemSpec(f"{setting.name}-{seed}".replace(" ", "-").replace("=", ""), config, (), seed, HERE)
        with Pool(Bench, backbone, {seed: task}, workers=default_workers()) as pool:
            ensure_trained(pool, spec, out)
        bench = Bench(backbone, {seed: task})
        view, secrets = seat(bench, spec, out, "server"), trained_scene(bench, spec, out).store.secrets
        start = time.perf_counter()
        claim = Span(SpanConfig()).run(view, np.random.default_rng(seed))
        seconds += time.perf_counter() - start
        scores += [_score(task, secrets, said, backbone.tokenizer) for said in claim.clients]
    return _line(setting, scores, seconds / len(scores))


def _score(task: Any, secrets: Any, said: ClientTexts, tokenizer: Any) -> Score:
    drawn = {row for round in secrets.batches(said.client) for step in round for row in step}
    true = [tokenizer.decode(task.encoded.ids[row], skip_special_tokens=True) for row in sorted(drawn)]
    found = reconstruction_scores(true, said.texts)
    rouge1, rouge2 = float(np.nanmean(found.rouge1)), float(np.nanmean(found.rouge2))
    exact = int(found.exact.sum())
    return Score(rouge1, rouge2, exact, len(true), len(said.texts) - exact)


def _line(setting: Setting, scores: list[Score], seconds: float) -> list[str]:
    rng = np.random.default_rng(0)
    rouge = np.array([[100 * score.rouge1, 100 * score.rouge2] for score in scores])
    means = [bootstrap(rouge[:, i], lambda rows: float(rows.mean()), rng=rng) for i in (0, 1)]
    texts = sum(score.texts for score in scores)
    exact = clopper_pearson(sum(score.exact for score in scores), texts)
    return [
        setting.name,
        f"{len(scores)} / {texts}",
        *(f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]" for mean in means),
        f"{exact.value:.3f} [{exact.low:.3f}, {exact.high:.3f}]",
        str(sum(score.false for score in scores)),
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
    with scratch() as folder:
        for setting in settings(names, count):
            row = measure(setting, folder)
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
