"""Utility of language models: perplexity on the test texts, against the bare backbone."""

import numpy as np
import pytest
import torch

from qlorabench.engines.measure import measure_leakage, measure_utility
from qlorabench.engines.scene import AttackSpec, trained_scene
from qlorabench.tasks.encoding import collate
from qlorabench.threats.models import ThreatSpec

from ..federation.language import language_bench, language_system, train_language

QUANTIZED = ("quantized-broadcast", {"bits": 2, "block_size": 32})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    spec, out = language_system(QUANTIZED, rounds=4, local_steps=6), tmp_path_factory.mktemp("out")
    train_language(spec, out)
    return spec, out


def by_metric(rows):
    return {row.metric: row for row in rows}


def naive_perplexity(scene, state):
    model, total, tokens = scene.lab.mount(state), 0.0, 0
    for row in scene.task.test:
        ids, mask = collate(scene.task.encoded, np.array([row]))
        with torch.no_grad():
            chances = torch.log_softmax(model(ids, mask)[0].double(), dim=1)
        total -= sum(float(chances[i, ids[0, i + 1]]) for i in range(ids.shape[1] - 1))
        tokens += ids.shape[1] - 1
    return np.exp(total / tokens)


def test_utility_is_perplexity_against_the_bare_backbone(trained):
    spec, out = trained
    scene = trained_scene(language_bench(), spec, out)
    rows = by_metric(measure_utility(language_bench(), spec, out))
    metrics = {f"perplexity_{held}" for held in ("server", "client", "backbone")}
    assert set(rows) == metrics | {f"gain_{held}_backbone" for held in ("server", "client")} | {"dropout"}
    for metric, state in (("server", scene.final_server), ("client", scene.final_broadcast), ("backbone", {})):
        found = rows[f"perplexity_{metric}"]
        assert found.value == pytest.approx(naive_perplexity(scene, state or scene.lab.bare), rel=1e-4)
        assert found.low < found.value < found.high
        assert found.n == len(scene.task.test)
    server = rows["perplexity_server"]
    assert (server.headline, server.control) == (True, rows["perplexity_backbone"].value)
    assert server.learned, "the toy model has learned"
    assert rows["perplexity_backbone"].learned is None


def test_a_recovered_adapter_is_judged_by_perplexity(trained):
    spec, out = trained
    seat = ThreatSpec("client").resolve()
    attack = AttackSpec(seat, "smoothing", "smoothing", {}, candidates=20, insiders=1)
    rows = by_metric(measure_leakage(language_bench(), spec, out, attack))
    scene = trained_scene(language_bench(), spec, out)
    gains = [scene.lab.losses(state, scene.test).mean() for state in (scene.final_broadcast, scene.final_server)]
    assert rows["utility_gap"].value == pytest.approx(gains[0] - gains[1])
    held = by_metric(measure_utility(language_bench(), spec, out))["perplexity_client"].value
    assert rows["perplexity_recovered"].control == pytest.approx(held)
    assert rows["error_removed"].headline


def test_membership_is_scored_on_texts_and_not_on_canaries(trained):
    spec, out = trained
    attack = AttackSpec(ThreatSpec("end-user").resolve(), "calibrated-loss", "c", {}, candidates=20, insiders=0)
    (found,) = [row for row in measure_leakage(language_bench(), spec, out, attack) if row.headline]
    assert (found.metric, found.n) == ("auc", 40)
