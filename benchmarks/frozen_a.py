"""What frozen A hides: one update of review texts under attention-span, by rank, length, round, codec and noise.

    python -m benchmarks.frozen_a            # the headline: r = 8, 50 texts of 10 to 20 tokens, one update
    python -m benchmarks.frozen_a --chart    # ranks 2 to 64, a later round, uploads of 8 and 4 bits, DP-SGD, two texts
    python -m benchmarks.frozen_a --words    # attention-words in its place, on one, two and four texts an update
    python -m benchmarks.frozen_a --texts    # word-matching in its place, on one step on a batch of four texts
    python -m benchmarks.frozen_a --coarse   # word-matching in its place, on one text behind a 4-bit upload
    python -m benchmarks.frozen_a --search   # gradient-matching in its place, with its default budget
    python -m benchmarks.frozen_a --prior    # the four that ask a language model, with noise in place of the update
    python -m benchmarks.frozen_a --descent  # subspace-descent in its place: r = 64, uploads of 8 and 4 bits, two texts
    python -m benchmarks.frozen_a --noise    # attention-span and subspace-descent under more and more Gaussian noise

Every text is a client of its own in a real federation, and every four where an update is of four; the server sees its
update and nothing else.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.attacks import seat
from benchmarks.scratch import scratch
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.pool import Pool
from qlorabench.engines.run import default_workers
from qlorabench.engines.scene import trained_scene
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.plugins import registry
from qlorabench.scoring.intervals import Interval, bootstrap, clopper_pearson, mean_of_shares
from qlorabench.scoring.text import reconstruction_scores
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import Backbone, load_backbone
from qlorabench.tasks.task import PreparedTask, load_data, prepare
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import Update, View

HERE = Path()


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    name: str
    rank: int = 8
    texts: int = 1
    """Texts in an update: a step on each, in turn."""
    batch: int = 1
    """Texts of each of these steps."""
    rounds: int = 1
    """The last of which is read."""
    defenses: tuple[tuple[str, dict[str, Any]], ...] = ()
    clients: int = 50
    skipped: int = 0
    """Texts that others than these clients have."""
    attack: str = "attention-span"
    """Which one reads; it looks at one update."""
    noise: float = 0.0
    """Noise multiplier of one step of DP-SGD that clips to just the norm of the update, added to it and known."""
    blank: bool = False
    """Whether normal numbers of its spread stand in place of the update, which the attack does not know."""

    @property
    def rows(self) -> int:
        """Texts of a client, who draws a quarter of them at most where a batch has more than one."""
        return self.texts if self.batch == 1 else 4 * self.batch

    def task(self) -> TaskConfig:
        """Return the federation: as many clients as victims, each with the texts of one update."""
        return TaskConfig.model_validate(
            {
                "backbone": {"name": "minilm-l6"},
                "data": {"source": "rotten-tomatoes", "max_length": 24, "test_rows": 20, "holdout_rows": 20},
                "clients": self.clients,
                "rows_per_client": self.rows,
                "lora": {"rank": self.rank, "alpha": 2 * self.rank},
                "training": {
                    "rounds": self.rounds,
                    "local_steps": self.texts,
                    "batch_size": self.batch,
                    "optimizer": {"kind": "sgd", "lr": 0.1},
                },
            }
        )


HEADLINE = [Setting("r = 8, one update")]
CHART = [
    *(Setting(f"r = {rank}", rank, clients=16) for rank in (2, 4, 16, 32, 64)),
    Setting("r = 8, two texts an update", texts=2, clients=16),
    Setting("r = 8, four texts an update", texts=4, clients=16),
    Setting("r = 8, third round", rounds=3, clients=16),
    Setting("r = 8, 8-bit upload", defenses=(("quantized-upload", {"bits": 8}),), clients=16),
    Setting("r = 8, 4-bit upload", defenses=(("quantized-upload", {"bits": 4}),), clients=16),
    Setting("r = 8, DP-SGD epsilon 8", defenses=(("dp-sgd", {"epsilon": 8}),), clients=16),
]
WORDS = [Setting(f"r = 8, {n} texts an update", texts=n, clients=12, attack="attention-words") for n in (1, 2, 4)]
TEXTS = [Setting("r = 8, a batch of four texts", batch=4, clients=12, attack="word-matching")]
COARSE = [
    Setting(
        "r = 8, 4-bit upload, one text",
        defenses=(("quantized-upload", {"bits": 4}),),
        clients=8,
        skipped=16,
        attack="word-matching",
    )
]
SEARCH = [Setting("r = 8", clients=8, attack="gradient-matching")]
PRIOR = [
    Setting(f"noise alone, {attack}", rank, clients=clients, attack=attack, blank=True)
    for attack, rank, clients in (
        ("attention-span", 8, 8),
        ("word-matching", 8, 8),
        ("subspace-descent", 64, 8),
        ("gradient-matching", 8, 4),
    )
]
DESCENT = [
    Setting("r = 64", 64, clients=8, attack="subspace-descent"),
    *(
        Setting(
            f"r = 64, {bits}-bit upload",
            64,
            defenses=(("quantized-upload", {"bits": bits}),),
            clients=8,
            attack="subspace-descent",
        )
        for bits in (8, 4)
    ),
    Setting("r = 64, a batch of two texts", 64, batch=2, clients=8, attack="subspace-descent"),
    Setting(
        "r = 64, a batch of two texts, 8-bit upload",
        64,
        batch=2,
        clients=8,
        attack="subspace-descent",
        defenses=(("quantized-upload", {"bits": 8}),),
    ),
]
NOISE = [
    Setting(f"r = {rank}, noise {noise:g}, {attack}", rank, clients=8, attack=attack, noise=noise)
    for rank, attack in ((8, "attention-span"), (64, "subspace-descent"))
    for noise in (0.0003, 0.001, 0.003, 0.01, 0.03)
]


def victims(setting: Setting, backbone: Backbone) -> PreparedTask:
    """Return the task with clients that hold texts of 10 to 20 tokens, special ones included."""
    task = setting.task()
    prepared = prepare(task, load_data(task, base=HERE), backbone.tokenizer, seed=Seed(0))
    fit = np.flatnonzero((prepared.encoded.lengths >= 10) & (prepared.encoded.lengths <= 20))
    drawn = np.random.default_rng(0).permutation(fit)[setting.skipped :][: setting.clients * setting.rows]
    return replace(prepared, client_rows=tuple(drawn.reshape(setting.clients, setting.rows)))


def measure(setting: Setting, backbone: Backbone, out: Path) -> list[str]:
    """Train, attack, and return the line of the table."""
    task = victims(setting, backbone)
    defenses = (("frozen-a", {}), *setting.defenses)
    spec = SystemSpec(setting.name.replace(" ", "-").replace("=", ""), setting.task(), defenses, 0, HERE)
    with Pool(Bench, backbone, {0: task}, workers=default_workers()) as pool:
        ensure_trained(pool, spec, out)
    bench = Bench(backbone, {0: task})
    view = _noisy(_last_round(seat(bench, spec, out, "server")), setting.noise)
    view = _blank(view) if setting.blank else view
    secrets = trained_scene(bench, spec, out).store.secrets
    start = time.perf_counter()
    cls = registry("attacks").load(setting.attack)
    attack = cls(cls.Config(updates=1))
    claim = attack.run(view, np.random.default_rng(0))
    seconds = (time.perf_counter() - start) / setting.clients
    said = {texts.client: texts for texts in claim.clients}
    special = set(backbone.tokenizer.all_special_ids)
    drawn = [[task.encoded.ids[row] for step in secrets.batches(c)[-1] for row in step] for c in range(setting.clients)]
    every = [[backbone.tokenizer.decode(row, skip_special_tokens=True) for row in ids] for ids in drawn]
    rouge, others, exact, recall, true, claimed = [], [], [], [], 0, 0
    for client, (ids, texts) in enumerate(zip(drawn, every, strict=True)):
        scores = reconstruction_scores(texts, said[client].texts)
        others += reconstruction_scores(every[client - 1], said[client].texts).rouge1.tolist()
        words = {int(t) for row in ids for t in row} - special
        rouge.append(float(np.mean(scores.rouge1)))
        exact += scores.exact.tolist()
        recall.append(len(words & said[client].tokens) / len(words))
        true, claimed = true + len(words & said[client].tokens), claimed + len(said[client].tokens)
    share = clopper_pearson(int(sum(exact)), len(exact))
    means, rng = np.array(rouge), np.random.default_rng(0)
    alone = all(len(texts) == 1 for texts in every)
    mean = mean_of_shares(means, rng=rng) if alone else bootstrap(means, lambda rows: float(rows.mean()), rng=rng)
    return [
        setting.name,
        str(len(exact)),
        _percent(mean),
        f"{100 * np.mean(others):.1f}",
        f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]",
        f"{np.mean(recall):.3f}",
        f"{true / claimed:.3f}" if claimed else "-",
        f"{seconds:.1f}",
    ]


def _last_round(view: View) -> View:
    last = max(update.round for update in view.updates)
    updates = tuple(update for update in view.updates if update.round == last)
    return replace(view, _facets={**view._facets, Capability.OTHERS_UPDATES: updates})


def _noisy(view: View, multiplier: float) -> View:
    """Return ``view`` with ``multiplier`` times the norm of each update as noise in its elements, which it knows of."""
    draws = torch.Generator().manual_seed(0)

    def noisy(update: Update) -> Update:
        spread = multiplier * float(sum(x.square().sum() for x in update.state.values())) ** 0.5
        state = {n: x + spread * torch.randn(x.shape, generator=draws) for n, x in update.state.items()}
        known = {n: torch.full_like(x, spread**2) for n, x in update.state.items()}
        return replace(update, state=state, noise=known)

    if not multiplier:
        return view
    return replace(view, _facets={**view._facets, Capability.OTHERS_UPDATES: tuple(map(noisy, view.updates))})


def _blank(view: View) -> View:
    """Return ``view`` with normal numbers of the spread of each tensor in place of it."""
    draws = torch.Generator().manual_seed(0)

    def blank(update: Update) -> Update:
        state = {n: x.std() * torch.randn(x.shape, generator=draws) for n, x in update.state.items()}
        return replace(update, state=state)

    return replace(view, _facets={**view._facets, Capability.OTHERS_UPDATES: tuple(map(blank, view.updates))})


def _percent(share: Interval) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def main() -> None:
    """Print the table."""
    kinds = {
        "": HEADLINE,
        "--chart": CHART,
        "--words": WORDS,
        "--texts": TEXTS,
        "--coarse": COARSE,
        "--search": SEARCH,
        "--prior": PRIOR,
        "--descent": DESCENT,
        "--noise": NOISE,
    }
    settings = kinds.get(" ".join(sys.argv[1:]))
    if settings is None:
        sys.exit(f"frozen_a takes one of {', '.join(filter(None, kinds))}, or nothing")
    backbone = load_backbone(HEADLINE[0].task().backbone, base=HERE)
    backbone.model.share_memory()
    columns = (
        "frozen A",
        "texts",
        "ROUGE-1",
        "of another client's",
        "exact",
        "token recall",
        "precision",
        "s / client",
    )
    table = Table(*columns)
    with scratch() as folder:
        for setting in settings:
            row = measure(setting, backbone, folder)
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
