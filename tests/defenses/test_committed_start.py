import pytest
import torch

from qlorabench.defenses.committed_start import CommittedStart
from qlorabench.federation.bench import describe
from qlorabench.federation.client import BroadcastRefused
from qlorabench.seeding import Seed

from ..federation.systems import protocol_of, random_state, system, train

CHECK = ("committed-start", {})
CODECS = [{"bits": 3}, {"bits": 4, "rounding": "stochastic"}, {"bits": 8, "double_quantization": True}]


@pytest.fixture(scope="module")
def protocol():
    return protocol_of(system(CHECK))


@pytest.fixture(scope="module")
def start(bench):
    return describe(bench, system(CHECK))[1]


def asked(protocol, start, received, previous=None, **config):
    context = protocol.contexts(0, Seed(0), client=0)["committed-start"]
    check = CommittedStart(CommittedStart.Config(**config))
    return check.accept({**start, **received}, previous=previous, start=start, context=context)


def trained(start, scale=0.1):
    """Return a later state: A a little off, B grown."""
    noise = random_state_of(start)
    moved = {n: v + (scale * v.norm() / noise[n].norm() * noise[n] if v.any() else noise[n]) for n, v in start.items()}
    return moved


def random_state_of(state):
    return {name: torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) for name, value in state.items()}


def scaled(state, role, factor):
    return {name: value * factor if name.endswith(role) else value for name, value in state.items()}


def test_the_start_itself_is_accepted(protocol, start):
    assert asked(protocol, start, start) is None


@pytest.mark.parametrize("codec", CODECS)
def test_the_start_behind_a_codec_is_accepted(start, codec):
    protocol = protocol_of(system(CHECK, ("quantized-broadcast", codec)))
    data = protocol.encode_broadcast(start, round=0, seed=Seed(3))
    assert asked(protocol, start, protocol.decode_broadcast(data, round=0)) is None


@pytest.mark.parametrize("name", ["A", "B", "head.weight"])
def test_a_first_broadcast_of_another_start_is_refused(protocol, start, name):
    odd = next(n for n in start if n.endswith(name))
    why = asked(protocol, start, {odd: random_state(protocol.facts.travelling)[odd]})
    assert why.startswith(f"{odd} is ")
    assert "committed start" in why


def test_what_moved_a_little_is_accepted(protocol, start):
    before = trained(start)
    assert asked(protocol, start, trained(before), before) is None


def test_a_new_a_is_refused(protocol, start):
    before = trained(start)
    fresh = {n: v[:, torch.randperm(v.shape[1])] if n.endswith(".A") else v for n, v in before.items()}
    assert "max_drift" in asked(protocol, start, fresh, before)


def test_the_drift_is_a_distance_in_the_norm_of_the_tensor(protocol, start):
    before = trained(start)
    moved = scaled(before, ".A", 1.25)
    assert asked(protocol, start, moved, before, max_drift=0.26) is None
    assert "by 0.25 of its norm" in asked(protocol, start, moved, before, max_drift=0.24)


@pytest.mark.parametrize(("kept", "says"), [(0.0, "is zero"), (0.4, "shrank to 0.4"), (float("nan"), "shrank to nan")])
def test_a_b_that_falls_back_is_refused(protocol, start, kept, says):
    before = trained(start)
    assert says in asked(protocol, start, scaled(before, ".B", kept), before)


def test_a_b_that_stays_zero_after_the_first_round_is_refused(protocol, start):
    assert "is zero" in asked(protocol, start, start, start)


def test_a_that_is_not_a_number_is_refused(protocol, start):
    before = trained(start)
    assert asked(protocol, start, scaled(before, ".A", float("nan"))) is not None
    assert asked(protocol, start, scaled(before, ".A", float("nan")), before) is not None


@pytest.mark.parametrize(
    ("defenses", "optimizer"),
    [
        ((), {"lr": 0.3}),
        ((), {"lr": 0.1, "momentum": 0.9}),
        ((), {"kind": "adamw", "lr": 0.01}),
        ((("quantized-broadcast", {"bits": 4}), ("frozen-a", {}), ("dp-sgd", {})), {"lr": 0.1}),
        ((("quantized-broadcast", {"bits": 3}),), {"lr": 0.2}),
    ],
)
def test_honest_federations_do_not_trip_it(tmp_path, defenses, optimizer):
    train(system(CHECK, *defenses, rounds=6, optimizer=optimizer), tmp_path)


def test_limits_too_tight_end_an_honest_run_and_say_which(tmp_path):
    with pytest.raises(BroadcastRefused, match=r"committed-start: .*max_drift 0\.0001"):
        train(system(("committed-start", {"max_drift": 1e-4})), tmp_path)
