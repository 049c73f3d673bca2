"""Federations of three clients on the toy system, trained in this process."""

from concurrent.futures import Future
from functools import cache
from pathlib import Path

import torch

from qlorabench.engines.federations import ensure_trained
from qlorabench.federation.bench import Bench, SystemSpec, describe
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.transcript import FederationStore
from qlorabench.hashing import digest
from qlorabench.seeding import Seed
from qlorabench.suite.schema import BackboneConfig, TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare

torch.set_num_threads(1)

HERE = Path(__file__).parent
CLIENTS = 3
ROUNDS = 2
QUANTIZED = ("quantized-broadcast", {"block_size": 32})
STOCHASTIC = ("quantized-broadcast", {"bits": 2, "rounding": "stochastic", "double_quantization": True})
UPLOAD = ("quantized-upload", {"block_size": 32})
FROZEN = ("frozen-a", {})
PRIVATE = ("dp-sgd", {})
SYSTEMS = {
    "plain": (),
    "frozen-a": (FROZEN,),
    "quantized-broadcast": (QUANTIZED,),
    "quantized-upload": (UPLOAD,),
    "dp-sgd": (PRIVATE,),
    "both-directions": (STOCHASTIC, UPLOAD),
    "everything": (("frozen-a", {"init": "svd"}), PRIVATE, QUANTIZED, UPLOAD),
}


def task_config(*, head="shared", rank=4, **training):
    return TaskConfig.model_validate(
        {
            "backbone": {"name": "toy"},
            "data": {"source": "toy", "max_length": 12, "test_rows": 40, "holdout_rows": 40},
            "clients": CLIENTS,
            "rows_per_client": [16, 40, 40],
            "lora": {"rank": rank, "alpha": 8.0},
            "head": {"train": head},
            "training": {"rounds": ROUNDS, "local_steps": 3, "batch_size": 10, "optimizer": {"lr": 0.3}, **training},
        }
    )


@cache
def toy_bench():
    """Return the one bench of this process, with the data of seeds 0 and 1."""
    backbone = load_backbone(BackboneConfig(name="toy"), base=HERE)
    config = task_config()
    data = load_data(config, base=HERE)
    tasks = {seed: prepare(config, data, backbone.tokenizer, seed=Seed(seed, ("data",))) for seed in (0, 1)}
    return Bench(backbone, tasks)


def system(*defenses, seed=0, **changes):
    config = task_config(**changes)
    key = digest([config.model_dump(mode="json"), defenses])
    return SystemSpec(key, config, tuple(defenses), seed, HERE)


def protocol_of(spec):
    facts, _ = describe(toy_bench(), spec)
    return Protocol(facts, spec.build_defenses())


class InProcess:
    """Stands in for a pool of workers; ends in a KeyboardInterrupt after so many jobs."""

    def __init__(self, bench, jobs=10**9):
        self.bench, self.left, self.done = bench, jobs, 0

    def submit(self, function, *arguments, seconds=None):
        if self.done == self.left:
            raise KeyboardInterrupt
        self.done += 1
        future = Future()
        future.set_result(function(self.bench, *arguments))
        return future


def train(spec, out):
    """Train what is left of the federation of ``spec`` in ``out``."""
    ensure_trained(InProcess(toy_bench()), spec, out)
    return FederationStore(out, spec.key)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def random_state(layout, *, seed=0, scale=0.1):
    rng = Seed(seed, ("state",)).numpy()
    return {s.name: torch.from_numpy(rng.normal(0, scale, s.shape)).float() for s in layout}
