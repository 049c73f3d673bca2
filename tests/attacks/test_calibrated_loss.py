from dataclasses import replace

import numpy as np
import pytest

from qlorabench.attacks.calibrated_loss import CalibratedLoss
from qlorabench.engines.federations import ensure_trained
from qlorabench.federation.bench import Bench
from qlorabench.federation.transcript import FederationStore
from qlorabench.scoring.verdicts import judge_membership
from qlorabench.seeding import Seed
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import draw_challenge
from qlorabench.threats.lab import Lab
from qlorabench.threats.models import ThreatSpec
from qlorabench.threats.observe import observe
from qlorabench.threats.prompts import draw_prompts

from ..federation.systems import InProcess, protocol_of, system, toy_bench


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """Return a function from threats to (view, members) of a federation trained on coin-flipped labels.

    Such labels cannot be learned, only remembered.
    """
    usual, out = toy_bench(), tmp_path_factory.mktemp("memorised")
    task = usual.tasks[0]
    labels = np.random.default_rng(3).integers(0, 2, len(task.encoded))
    coins = replace(task, encoded=replace(task.encoded, labels=labels))
    rows = tuple(r[:16] for r in task.client_rows)
    bench = Bench(usual.backbone, {0: replace(coins, client_rows=rows)}, _model=usual._model)
    spec = system(rounds=10, local_steps=12, batch_size=4, optimizer={"kind": "adamw", "lr": 0.02})
    usual.model(spec)
    bench._model = usual._model
    ensure_trained(InProcess(bench), spec, out)
    store, start = FederationStore(out, spec.key), bench.start(spec, [])

    def seat(name):
        threat = ThreatSpec(name).resolve()
        challenge = draw_challenge(bench.tasks[0], insiders=threat.colluders, most=40, seed=Seed(1))
        lab = Lab(bench.model(spec), bench.backbone.tokenizer, start)
        facts = store.transcript.facts
        protocol = replace(protocol_of(spec), facts=facts)
        game = draw_prompts((), insiders=0, seed=Seed(1))
        options = {"protocol": protocol, "task": bench.tasks[0], "lab": lab, "challenge": challenge, "game": game}
        view = observe(threat, store.transcript, store.secrets, weights=[1.0] * 3, **options)
        return view, challenge.members

    return seat


def run(view, **config):
    return CalibratedLoss(CalibratedLoss.Config(**config)).run(view, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["end-user", "eavesdropper", "client"])
def test_members_of_an_overfitted_federation_stand_out(memorised, name):
    view, members = memorised(name)
    rows = judge_membership(run(view), members, rng=np.random.default_rng(0))
    auc = next(row for row in rows if row.metric == "auc")
    assert auc.value > 0.65
    assert auc.low > 0.5
    assert auc.leakage_low > 0


def test_shuffled_bits_of_membership_leak_nothing(memorised):
    view, members = memorised("eavesdropper")
    claim = run(view)
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = judge_membership(claim, rng.permutation(members), rng=rng)
        auc = next(row for row in rows if row.metric == "auc")
        assert abs(auc.value - 0.5) < 0.25
        found.append(auc.leakage_low)
    assert sum(low > 0 for low in found) <= 1


def test_a_score_is_the_drop_of_the_loss_from_the_backbone_to_the_adapter(memorised):
    view, _ = memorised("end-user")
    naive = view.lab.losses(view.lab.bare, view.candidates) - view.lab.losses(view.released, view.candidates)
    np.testing.assert_allclose(run(view).scores, naive)
    assert "the released adapter" in run(view).note


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_losses_of_the_last_broadcasts_are_averaged(memorised, count):
    view, _ = memorised("eavesdropper")
    bare = view.lab.losses(view.lab.bare, view.candidates)
    losses = [view.lab.losses(b.state, view.candidates) for b in view.broadcasts[-count:]]
    np.testing.assert_allclose(run(view, broadcasts=count).scores, bare - np.mean(losses, axis=0))


def test_who_has_one_adapter_and_who_looks_at_the_last_score_alike(memorised):
    one, many = memorised("end-user")[0], memorised("eavesdropper")[0]
    np.testing.assert_array_equal(run(one).scores, run(many, broadcasts=1).scores)


def test_it_needs_no_more_than_a_released_adapter():
    assert CalibratedLoss.requires == {Capability.RELEASED_ADAPTER, Capability.CANDIDATES}
