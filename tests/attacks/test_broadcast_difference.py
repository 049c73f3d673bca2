"""What a client works out of broadcasts: exact where they are, within the declared noise where they are quantized."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._residual import outsiders_view
from qlorabench.attacks.broadcast_difference import BroadcastDifference, BroadcastDifferenceConfig
from qlorabench.defenses.quantized_broadcast import QuantizedBroadcast, QuantizedBroadcastConfig
from qlorabench.federation import wire
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import weighted_mean
from qlorabench.suite.schema import TrainingConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import Update, View

from . import courses
from .test_span import POOLS, federate, texts

ROUNDS = 6
RULES = ("keep-residual", "drop-residual", "towards-clients", "towards-clients-decayed")


def below(view, *, insiders):
    """Return the view of the first clients of a federation whose server sees ``view``."""
    facets = {
        Capability.BROADCASTS: tuple(replace(b, payload=wire.from_bytes(b.data)) for b in view.broadcasts),
        Capability.OWN_UPDATES: tuple(u for u in view.updates if u.client < insiders),
    }
    return View("colluding-clients", insiders, view.facts, view.lab, facets)


def course(*, rule, bits, weighting="uniform", server_lr=1.0, insiders=2):
    """Return the view of colluders in a federation of three whose updates are drawn at random, and those updates."""
    protocol = courses.protocol_of(rounds=ROUNDS, clients=3, bits=bits, server_rule=rule, server_lr=server_lr)
    training = TrainingConfig(rounds=ROUNDS, weighting=weighting)
    facts = PublicFacts(**{**vars(protocol.facts), "client_rows": (10, 20, 30), "training": training})
    weights = [float(n) if weighting == "examples" else 1.0 for n in facts.client_rows]
    server, layout = courses.adapter(1), facts.travelling
    broadcasts, updates = [], []
    for round in range(ROUNDS + 1):
        broadcasts.append(courses.broadcast(protocol, round, server))
        if round == ROUNDS:
            break
        drawn = [layout.unflatten(courses.adapter(10 * round + i, 0.02)) for i in range(3)]
        updates += [Update(round, client, b"", state) for client, state in enumerate(drawn)]
        context = protocol.contexts(round, None)["quantized-broadcast"]
        mean = weighted_mean(drawn, weights)
        server = layout.flatten(
            protocol.defenses[0].update_server(layout.unflatten(server), broadcasts[-1].state, mean, context)
        )
    own = tuple(u for u in updates if u.client < insiders)
    facets = {Capability.BROADCASTS: tuple(broadcasts), Capability.OWN_UPDATES: own}
    outside = [
        weighted_mean([u.state for u in updates if u.round == r and u.client >= insiders], weights[insiders:])
        for r in range(ROUNDS)
    ]
    return View("colluding-clients", insiders, facts, None, facets), outside


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
@pytest.mark.parametrize("insiders", [0, 1, 2])
@pytest.mark.parametrize(("rule", "server_lr"), [(rule, lr) for rule in RULES for lr in (1.0, 0.5)])
def test_the_remainder_is_the_outsiders_mean_within_its_declared_noise(rule, server_lr, insiders, weighting):
    view, outside = course(rule=rule, bits=8, server_lr=server_lr, insiders=insiders, weighting=weighting)
    merged, layout = outsiders_view(view), view.facts.travelling
    assert merged.facts.client_rows == (sum((10, 20, 30)[insiders:]),)
    assert len(merged.updates) == ROUNDS
    for found, true in zip(merged.updates, outside, strict=True):
        gap = (layout.flatten(found.state) - layout.flatten(true)).double()
        assert 0.85 < float((gap.square() / layout.flatten(found.noise).double()).mean().sqrt()) < 1.15


@pytest.fixture(scope="module")
def clients():
    return [texts(pool, seed=i) for i, pool in enumerate(POOLS)]


@pytest.fixture(scope="module")
def plain(clients):
    return federate(*clients)


def test_with_exact_broadcasts_a_lone_victims_update_is_known_to_rounding(plain):
    merged = outsiders_view(below(plain, insiders=1))
    for found, true in zip(merged.updates, [u for u in plain.updates if u.client == 1], strict=False):
        for name, value in true.state.items():
            torch.testing.assert_close(found.state[name], value, rtol=0, atol=3e-7)


def test_a_client_reads_the_other_clients_words_as_the_server_does(plain):
    attack = BroadcastDifference(BroadcastDifferenceConfig())
    (said,) = attack.run(below(plain, insiders=1), np.random.default_rng(0)).clients
    assert said.client == 1
    assert said.tokens == set(POOLS[1].tolist())


def test_an_eavesdropper_reads_everybodys_words_and_not_whose(plain):
    attack = BroadcastDifference(BroadcastDifferenceConfig())
    claim = attack.run(below(plain, insiders=0), np.random.default_rng(0))
    assert [said.client for said in claim.clients] == [0, 1]
    assert claim.clients[0].tokens == claim.clients[1].tokens == {int(w) for pool in POOLS for w in pool}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_quantized_broadcasts_cost_words_and_no_precision(clients, bits):
    codec = QuantizedBroadcast(QuantizedBroadcastConfig(bits=bits, block_size=32))
    view = below(federate(*clients, defenses=[codec]), insiders=1)
    (said,) = BroadcastDifference(BroadcastDifferenceConfig()).run(view, np.random.default_rng(0)).clients
    assert said.tokens <= set(POOLS[1].tolist())
    assert said.tokens or said.note


def test_adamw_is_blind_to_it_as_to_span(plain):
    adam = TrainingConfig.model_validate({"optimizer": {"kind": "adamw", "lr": 1e-3}})
    attack = BroadcastDifference(BroadcastDifferenceConfig())
    assert "AdamW" in attack.blind(PublicFacts(**{**vars(plain.facts), "training": adam}))
    assert attack.blind(plain.facts) is None
