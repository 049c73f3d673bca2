from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.federation.bench import describe, train_client
from qlorabench.federation.client import contribute
from qlorabench.federation.defense import Defense, DefenseConfig
from qlorabench.federation.facts import DefenseFacts
from qlorabench.federation.protocol import Protocol
from qlorabench.seeding import Seed

from .systems import SYSTEMS, protocol_of, random_state, system


@pytest.fixture(params=["plain", "everything"])
def spec(request):
    return system(*SYSTEMS[request.param])


def contribution(bench, spec, *, client=0, round=0, protocol=None, data=None):
    facts, start = describe(bench, spec)
    protocol = protocol or Protocol(facts, spec.build_defenses())
    server = {name: start[name] for name in facts.travelling.names}
    return contribute(
        bench.model(spec),
        protocol,
        data or bench.tasks[spec.seed].client(client),
        protocol.encode_broadcast(server, round=round, seed=spec.random),
        previous=None,
        start=start,
        client=client,
        round=round,
        seed=spec.random.child("round", round, "client", client),
        draws=Seed(spec.seed, ("batches", str(round), str(client))),
    )


def test_an_update_is_how_far_training_went_from_the_broadcast(bench):
    spec = system()
    protocol = protocol_of(spec)
    made = contribution(bench, spec)
    update = protocol.decode_update(made.message, round=0, client=0)
    _, start = describe(bench, spec)
    after = bench.model(spec).state()
    assert all(torch.equal(update[name], after[name] - start[name]) for name in update)


def test_a_client_starts_from_what_it_was_sent_and_not_from_what_the_server_holds(bench):
    spec = system(*SYSTEMS["quantized-broadcast"])
    protocol = protocol_of(spec)
    server = random_state(protocol.facts.travelling)
    data = protocol.encode_broadcast(server, round=0, seed=spec.random)
    made = train_client(bench, spec, protocol.facts, data, None, 0, 0)
    update, held = protocol.decode_update(made.message, round=0, client=0), protocol.decode_broadcast(data, round=0)
    after = bench.model(spec).state()
    torch.testing.assert_close(after, {**after, **{n: held[n] + update[n] for n in held}}, rtol=0, atol=1e-6)
    assert any(not torch.equal(held[n], server[n]) for n in held)


def test_what_a_client_sends_does_not_depend_on_who_trained_before_it(bench, spec):
    first = contribution(bench, spec, client=1)
    contribution(bench, system(*SYSTEMS["both-directions"], head="frozen"), client=2, round=1)
    assert contribution(bench, spec, client=1) == first


def test_clients_and_rounds_draw_their_own_batches(bench):
    spec = system()
    drawn = [contribution(bench, spec, client=c, round=r).batches for c, r in ((1, 0), (2, 0), (1, 1))]
    assert all(a != b for i, a in enumerate(drawn) for b in drawn[:i])


def test_adapters_of_two_shapes_take_turns_on_one_backbone(bench):
    large, small = system(), system(rank=2)
    first = contribution(bench, large)
    other = contribution(bench, small)
    assert len(other.message) < len(first.message)
    assert contribution(bench, large) == first
    assert contribution(bench, small) == other


def test_training_that_moves_nothing_is_an_error(bench, monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: None)
    with pytest.raises(RuntimeError, match="moved no weight"):
        contribution(bench, system())


class Meddler(Defense[DefenseConfig]):
    """Moves a frozen tensor behind everybody's back."""

    name = "meddler"
    Config = DefenseConfig

    def __init__(self, parameter):
        super().__init__(DefenseConfig())
        self._parameter = parameter

    def local_training(self, training, context):
        def close():
            with torch.no_grad():
                self._parameter.add_(1e-3)

        return replace(training, close=close)


@pytest.mark.parametrize("frozen", ["head.weight", "head.bias"])
def test_training_that_moves_a_frozen_tensor_is_an_error(bench, frozen):
    spec = system(head="frozen")
    facts, _ = describe(bench, spec)
    model = bench.model(spec)
    meddler = Meddler(dict(model.named_parameters())[frozen])
    told = replace(facts, defenses=(DefenseFacts("meddler", {}),))
    with pytest.raises(RuntimeError, match="keeps frozen"):
        contribution(bench, spec, protocol=Protocol(told, [meddler]))


def test_a_job_tells_batches_as_rows_of_the_data_set(bench):
    spec = system()
    protocol = protocol_of(spec)
    _, start = describe(bench, spec)
    data = protocol.encode_broadcast(start, round=0, seed=spec.random)
    made = train_client(bench, spec, protocol.facts, data, None, 2, 0)
    rows = bench.tasks[0].client_rows[2]
    assert all(isinstance(row, int) for batch in made.batches for row in batch)
    assert np.isin(np.concatenate(made.batches), rows).all()


def test_systems_without_private_sampling_are_compared_on_the_same_batches(bench):
    plain, quantized = system(), system(("quantized-broadcast", {"bits": 4}))
    made = [train_client(bench, s, describe(bench, s)[0], message(bench, s), None, 0, 0) for s in (plain, quantized)]
    assert made[0].batches == made[1].batches


def message(bench, spec):
    facts, start = describe(bench, spec)
    server = {name: start[name] for name in facts.travelling.names}
    return Protocol(facts, spec.build_defenses()).encode_broadcast(server, round=0, seed=spec.random)
