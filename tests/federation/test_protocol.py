import json

import pytest
import torch

from qlorabench.errors import UserError
from qlorabench.federation import wire
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.protocol import Protocol
from qlorabench.plugins import registry
from qlorabench.seeding import Seed

from .systems import SYSTEMS, UPLOAD, protocol_of, random_state, system


def receiver_of(protocol):
    """Return the protocol as somebody builds it who was told the public facts in JSON, and nothing else."""
    facts = PublicFacts.from_json(json.loads(json.dumps(protocol.facts.to_json())))
    classes = {d.name: registry("defenses").load(d.name) for d in facts.defenses}
    return Protocol(facts, [classes[d.name](classes[d.name].Config.model_validate(d.config)) for d in facts.defenses])


@pytest.fixture(params=["shared", "frozen"])
def head(request):
    return request.param


@pytest.mark.parametrize("name", SYSTEMS)
def test_facts_survive_json(name, head):
    protocol = protocol_of(system(*SYSTEMS[name], head=head))
    assert receiver_of(protocol).facts == protocol.facts


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_broadcast_is_decoded_from_bytes_and_public_facts_alone(name, head):
    protocol = protocol_of(system(*SYSTEMS[name], head=head))
    state = random_state(protocol.facts.travelling)
    data = protocol.encode_broadcast(state, round=1, seed=Seed(3))
    mine, theirs = (p.decode_broadcast(data, round=1) for p in (protocol, receiver_of(protocol)))
    assert list(mine) == list(theirs) == protocol.facts.travelling.names
    assert all(torch.equal(mine[n], theirs[n]) and mine[n].shape == state[n].shape for n in mine)


@pytest.mark.parametrize("name", SYSTEMS)
def test_an_update_is_decoded_from_bytes_and_public_facts_alone(name, head):
    protocol = protocol_of(system(*SYSTEMS[name], head=head))
    update = random_state(protocol.facts.travelling, scale=1e-3)
    data = protocol.encode_update(update, round=1, client=2, seed=Seed(3))
    mine, theirs = (p.decode_update(data, round=1, client=2) for p in (protocol, receiver_of(protocol)))
    assert all(torch.equal(mine[n], theirs[n]) and mine[n].shape == update[n].shape for n in update)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_same_seed_sends_the_same_bytes(name):
    protocol = protocol_of(system(*SYSTEMS[name]))
    state = random_state(protocol.facts.travelling)
    first, again = (protocol.encode_broadcast(state, round=0, seed=Seed(5)) for _ in range(2))
    assert first == again


def test_a_shared_head_travels_in_full_precision_beside_quantized_factors():
    protocol = protocol_of(system(*SYSTEMS["both-directions"]))
    state = random_state(protocol.facts.travelling)
    for decoded in (
        protocol.decode_broadcast(protocol.encode_broadcast(state, round=0, seed=Seed(1)), round=0),
        protocol.decode_update(protocol.encode_update(state, round=0, client=0, seed=Seed(1)), round=0, client=0),
    ):
        assert torch.equal(decoded["head.weight"], state["head.weight"])
        assert not any(torch.equal(decoded[n], state[n]) for n in state if not n.startswith("head."))


def test_only_the_quantized_direction_loses_precision():
    protocol = protocol_of(system(UPLOAD))
    state = random_state(protocol.facts.travelling)
    down = protocol.decode_broadcast(protocol.encode_broadcast(state, round=0, seed=Seed(1)), round=0)
    assert all(torch.equal(down[n], state[n]) for n in state)


@pytest.mark.parametrize("name", ["plain", "quantized-broadcast"])
@pytest.mark.parametrize("lost", ["entry", "values"])
def test_a_broadcast_that_does_not_fit_is_called_damaged(name, lost):
    protocol = protocol_of(system(*SYSTEMS[name]))
    payload = wire.from_bytes(protocol.encode_broadcast(random_state(protocol.facts.travelling), round=0, seed=Seed(1)))
    entry = next(k for k in payload if k != "head")
    payload = {k: v for k, v in payload.items() if k != entry or lost == "values"}
    if lost == "values":
        payload[entry] = payload[entry][:-1]
    with pytest.raises(UserError, match="the broadcast of round 7 is damaged"):
        protocol.decode_broadcast(wire.to_bytes(payload), round=7)
