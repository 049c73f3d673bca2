"""Federations of three clients on the toy language model, with canaries, trained in this process."""

from functools import cache
from pathlib import Path

import torch

from qlorabench.engines.federations import ensure_trained
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.transcript import FederationStore
from qlorabench.hashing import digest
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare

from .systems import InProcess

torch.set_num_threads(1)

HERE = Path(__file__).parent
CANARIES = {"count": 4, "repetitions": 12, "digits": 3, "references": 19}


def language_task(*, rank=8, **training):
    return TaskConfig.model_validate(
        {
            "backbone": {"name": "toy-lm"},
            "objective": "language-modeling",
            "data": {"source": "toy", "max_length": 24, "test_rows": 40, "holdout_rows": 40},
            "clients": 3,
            "rows_per_client": [16, 40, 40],
            "lora": {"rank": rank, "alpha": 16.0, "targets": ["q_proj", "k_proj", "v_proj"]},
            "training": {"rounds": 2, "local_steps": 3, "batch_size": 10, "optimizer": {"lr": 0.3}, **training},
            "canaries": CANARIES,
        }
    )


@cache
def language_bench():
    """Return the one bench of this process with the toy language model."""
    config = language_task()
    backbone = load_backbone(config.backbone, base=HERE, objective=config.objective)
    data = load_data(config, base=HERE)
    return Bench(backbone, {0: prepare(config, data, backbone.tokenizer, seed=Seed(0, ("data",)))})


def language_system(*defenses, **changes):
    config = language_task(**changes)
    return SystemSpec(digest([config.model_dump(mode="json"), defenses]), config, tuple(defenses), 0, HERE)


def train_language(spec, out):
    """Train the federation of ``spec`` into ``out``."""
    ensure_trained(InProcess(language_bench()), spec, out)
    return FederationStore(out, spec.key)
