"""Examples per second of a federated round against a bare forward-backward loop of the same model and batches.

    python -m benchmarks.federation [--rounds 4]

The bare loop runs in one process at its best number of threads, on the batches that the clients draw, cut by
length as they are there, with the same adapter and no optimizer, wire, transcript or federation around it. The
federation trains its clients in single-threaded processes that share the frozen backbone. All is measured in
turn in one run, so that the ratios hold when the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.scratch import scratch
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.pool import Pool
from qlorabench.engines.run import default_workers
from qlorabench.federation.bench import Bench, SystemSpec, describe
from qlorabench.federation.local import ShuffledBatches, by_length
from qlorabench.federation.losses import example_losses
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.encoding import collate
from qlorabench.tasks.task import load_data, prepare

TASK = TaskConfig.model_validate(
    {
        "backbone": {"name": "minilm-l6"},
        "data": {"source": "rotten-tomatoes", "max_length": 32, "test_rows": 100, "holdout_rows": 100},
        "clients": 4,
        "rows_per_client": 256,
        "training": {"rounds": 4, "local_steps": 8, "batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.1}},
    }
)
SYSTEMS = {
    "plain LoRA": (),
    "frozen A": (("frozen-a", {}),),
    "DP-SGD": (("dp-sgd", {"epsilon": 8.0}),),
    "quantized broadcast, frozen A, DP-SGD": (
        ("quantized-broadcast", {"bits": 4}),
        ("frozen-a", {}),
        ("dp-sgd", {"epsilon": 8.0}),
    ),
}
HERE = Path()


def bare_rate(bench: Bench, spec: SystemSpec, *, threads: int, examples: int) -> float:
    """Return examples per second of forward and backward passes alone, with ``threads`` threads."""
    torch.set_num_threads(threads)
    task, training = bench.tasks[0], spec.task.training
    model = bench.model(spec)
    model.train_only(bench.describe(spec).travelling)
    data = task.client(0)
    sampler = ShuffledBatches(len(data), training.batch_size, 10**6)
    done, start = 0, 0.0
    for step, rows in enumerate(sampler.batches(np.random.default_rng(0))):
        if step == 2:  # the first two warm up
            start, done = time.perf_counter(), 0
        for part in by_length(rows, data.lengths):
            ids, mask = collate(data, part)
            losses = example_losses(spec.task.objective, model(ids, mask), ids, mask, data.labels[part])
            losses.sum().backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        done += len(rows)
        if step > 2 and done >= examples:
            break
    return done / (time.perf_counter() - start)


def federated_rate(pool: Pool, spec: SystemSpec, out: Path) -> float:
    """Return examples per second of the rounds after the first: training, wire, aggregation and storage."""
    pool.submit(describe, spec).result()
    ends: list[float] = []
    ensure_trained(pool, spec, out, progress=lambda _: ends.append(time.perf_counter()))
    training = spec.task.training
    per_round = training.local_steps * training.batch_size * spec.task.clients
    return per_round * (len(ends) - 1) / (ends[-1] - ends[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    task = TASK.model_copy(update={"training": TASK.training.model_copy(update={"rounds": parser.parse_args().rounds})})
    backbone = load_backbone(task.backbone, base=HERE)
    prepared = {0: prepare(task, load_data(task, base=HERE), backbone.tokenizer, seed=Seed(0))}
    backbone.model.share_memory()
    specs = {name: SystemSpec(f"bench-{i}", task, d, 0, HERE) for i, (name, d) in enumerate(SYSTEMS.items())}
    workers = default_workers()
    table = Table("system", "bare loop, examples/s", "federated, examples/s", "ratio")
    with scratch() as out, Pool(Bench, backbone, prepared, workers=workers) as pool:
        federated = {name: federated_rate(pool, spec, out) for name, spec in specs.items()}
    bench = Bench(backbone, prepared)
    for name, spec in specs.items():
        plain = SystemSpec(spec.key, task, tuple(d for d in spec.defenses if d[0] == "frozen-a"), 0, HERE)
        rates = {t: bare_rate(bench, plain, threads=t, examples=512) for t in range(1, workers + 1)}
        best = max(rates, key=lambda t: rates[t])
        table.add_row(
            name,
            f"{rates[best]:.1f} ({best} threads)",
            f"{federated[name]:.1f}",
            f"{federated[name] / rates[best]:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
