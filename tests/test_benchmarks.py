"""Every benchmark can still be imported: the names that it takes from the project are there."""

import importlib
from pathlib import Path

import pytest

import benchmarks

MODULES = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_the_bare_loop_of_the_speed_benchmark_runs() -> None:
    import torch

    from benchmarks.federation import TASK, bare_rate
    from qlorabench.federation.bench import Bench, SystemSpec
    from qlorabench.seeding import Seed
    from qlorabench.suite.schema import TaskConfig
    from qlorabench.tasks.backbones import load_backbone
    from qlorabench.tasks.task import load_data, prepare

    data = {"source": "toy", "max_length": 12, "test_rows": 40, "holdout_rows": 40}
    small = {**TASK.model_dump(), "backbone": {"name": "toy"}, "data": data, "rows_per_client": 40}
    task = TaskConfig.model_validate(small)
    backbone = load_backbone(task.backbone, base=Path())
    bench = Bench(backbone, {0: prepare(task, load_data(task, base=Path()), backbone.tokenizer, seed=Seed(0))})
    threads = torch.get_num_threads()
    try:
        assert bare_rate(bench, SystemSpec("bare", task, (), 0, Path()), threads=1, examples=8) > 0
    finally:
        torch.set_num_threads(threads)
