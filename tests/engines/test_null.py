"""The control of a membership attack: the same attack where nobody trained on its candidates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qlorabench.engines.failures import AttackFailed
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.measure import measure_leakage
from qlorabench.engines.null import null_seed
from qlorabench.engines.scene import AttackSpec
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.schema import BackboneConfig, TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.models import ThreatSpec

from ..federation.systems import QUANTIZED, InProcess, system, train

HERE = Path(__file__).parent
LOSS = f"{HERE.parent / 'cases' / 'inputs' / 'plain_loss.py'}:PlainLoss"
RECORDER = HERE / "recorder.py"
SEEDS = range(4)
TRAININGS = {
    "untrained": {"rounds": 1, "local_steps": 1, "batch_size": 8, "optimizer": {"lr": 1e-7}},
    "gentle": {"rounds": 2, "local_steps": 4, "batch_size": 10, "optimizer": {"lr": 0.01}},
}


def attack_of(name, seat, *, null=None, candidates=200, insiders=1, **config):
    return AttackSpec(ThreatSpec(seat).resolve(), name, name, config, candidates, insiders, null)


def auc_of(rows):
    return next(row for row in rows if row.metric == "auc")


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """Federations whose clients hold one label each, almost: untrained ones of every seed, trained ones of two.

    Gentle training has every row of a client in each of its rounds.
    """
    config = {
        "backbone": {"name": "toy"},
        "data": {"source": "toy", "max_length": 12, "test_rows": 40, "holdout_rows": 200},
        "clients": 3,
        "rows_per_client": 40,
        "partition": {"kind": "dirichlet", "alpha": 0.05},
    }
    tasks = {kind: TaskConfig.model_validate({**config, "training": t}) for kind, t in TRAININGS.items()}
    backbone = load_backbone(BackboneConfig(name="toy"), base=HERE)
    data = load_data(tasks["untrained"], base=HERE)
    seeds = {s: prepare(tasks["untrained"], data, backbone.tokenizer, seed=Seed(s, ("data",))) for s in SEEDS}
    bench, out = Bench(backbone, seeds), tmp_path_factory.mktemp("skewed")
    specs = {}
    for kind, seed in [*(("untrained", s) for s in SEEDS), ("gentle", 0), ("gentle", 1)]:
        specs[kind, seed] = SystemSpec(f"{kind}-{seed}", tasks[kind], (), seed, HERE)
        ensure_trained(InProcess(bench), specs[kind, seed], out)
    return bench, specs, out


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("second", [True, False])
def test_a_model_that_learned_nothing_leaks_nothing_of_clients_with_labels_of_their_own(skewed, sign, second):
    bench, specs, out = skewed
    for seed in SEEDS:
        other = specs["untrained", null_seed(seed, SEEDS)] if second else None
        attack = attack_of(LOSS, "client", null=other, sign=sign)
        found = auc_of(measure_leakage(bench, specs["untrained", seed], out, attack))
        assert found.leakage_low == 0.0, (seed, found)
        assert found.n > 100
        assert (f"control: seed {other.seed}'s adapters" if second else "control: the bare backbone") in found.note


def test_a_real_leak_shows_against_another_seeds_adapters(skewed):
    bench, specs, out = skewed
    attack = attack_of("candidate-test", "server", null=specs["gentle", 1])
    found = auc_of(measure_leakage(bench, specs["gentle", 0], out, attack))
    assert found.leakage_low > 0.8


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One system under two seeds, and its files."""
    out = tmp_path_factory.mktemp("out")
    specs = [replace(system(QUANTIZED, seed=seed), key=f"two-{seed}") for seed in (0, 1)]
    for spec in specs:
        train(spec, out)
    return specs, out


@pytest.fixture
def recorded(bench, trained):
    """Run an attack that keeps its views; return them, and the rows."""

    def record(name, seat, *, second):
        (spec, other), out = trained
        reference = f"{RECORDER}:{name}"
        registry("attacks").load(reference).views.clear()
        attack = attack_of(reference, seat, null=other if second else None, candidates=30)
        rows = {row.metric: row for row in measure_leakage(bench, spec, out, attack)}
        return registry("attacks").load(reference).views, rows

    return record


def texts_of(view):
    return {row.tobytes() for row in view.candidates.ids}


def test_another_seed_is_asked_about_what_it_did_not_train_on(bench, recorded):
    (own, other), rows = recorded("Updates", "server", second=True)
    trained_on = {bench.tasks[1].encoded.ids[row].tobytes() for part in bench.tasks[1].client_rows for row in part}
    assert texts_of(own) & trained_on
    assert not texts_of(other) & trained_on
    assert texts_of(other) < texts_of(own)
    pairs = len(other.candidates) // 2
    assert f"control: seed 1's adapters, {pairs} of {len(own.candidates) // 2} pairs" in rows["auc"].note
    assert any(not torch.equal(own.updates[0].state[name], value) for name, value in other.updates[0].state.items())


def test_of_one_seed_the_bare_backbone_is_asked_where_no_updates_are_needed(recorded):
    (own, other), rows = recorded("Reader", "client", second=False)
    assert rows["auc"].note == "control: the bare backbone"
    assert texts_of(own) == texts_of(other)
    assert [b.round for b in other.broadcasts] == [b.round for b in own.broadcasts]
    for broadcast in other.broadcasts:
        assert broadcast.data == own.broadcasts[0].data
        assert all(torch.equal(broadcast.state[n], v) for n, v in own.broadcasts[0].state.items())
    assert not any(value.any() for name, value in other.released.items() if name.endswith(".B"))
    assert not other.has(Capability.OWN_UPDATES)


def test_of_one_seed_an_attack_on_updates_has_no_such_control_and_says_so(recorded):
    views, rows = recorded("Updates", "server", second=False)
    assert len(views) == 1
    assert "not controlled: what adapters trained without the candidates say" in rows["auc"].note


def test_what_the_control_asks_is_not_the_attacks_queries(bench, trained):
    (spec, other), out = trained
    counts = []
    for null in (None, other):
        rows = measure_leakage(bench, spec, out, attack_of("candidate-test", "server", null=null, candidates=20))
        counts.append(next(row.value for row in rows if row.metric == "queries"))
    assert counts[0] == counts[1] > 0


def test_a_control_whose_scores_are_no_numbers_fails(recorded):
    with pytest.raises(AttackFailed, match=r"control: the bare backbone: .* not finite"):
        recorded("Wild", "client", second=False)


def test_a_seeds_control_is_the_next_one_of_the_suite():
    assert [null_seed(seed, [3, 0, 7]) for seed in (3, 0, 7)] == [0, 7, 3]
    assert null_seed(5, [5]) is None


def test_the_same_job_gives_the_same_numbers(bench, trained):
    (spec, other), out = trained
    attack = attack_of("candidate-test", "server", null=other, candidates=20)
    assert measure_leakage(bench, spec, out, attack) == measure_leakage(bench, spec, out, attack)
    assert np.isfinite(auc_of(measure_leakage(bench, spec, out, attack)).control)
