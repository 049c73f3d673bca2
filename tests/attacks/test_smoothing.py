import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.attacks._track import Track, broadcast_codec
from qlorabench.attacks.smoothing import Smoothing
from qlorabench.scoring.score import Score
from qlorabench.scoring.verdicts import judge_adapter

from .courses import LAYOUT, adapter, error, view_of

NEAREST = {"bits": 4, "rounding": "nearest"}


def run(view):
    return Smoothing(Smoothing.Config()).run(view, np.random.default_rng(0))


def verdict(claim, view, truth):
    gap = Score("utility_gap", 0.1, 0.05, 0.15)
    states = {"truth": LAYOUT.unflatten(truth), "broadcast": view.broadcasts[-1].state, "public": {}}
    rows = judge_adapter(claim, **states, scaling=2.0, gap=gap, rng=np.random.default_rng(0))
    return next(row for row in rows if row.metric == "error_removed")


def track(broadcasts, coordinates, seed):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.normal(size=(broadcasts, coordinates)))
    half = torch.from_numpy(rng.uniform(0.1, 2.0, size=(broadcasts, coordinates)))
    drift = torch.from_numpy(rng.normal(size=(broadcasts - 1, coordinates)))
    size = drift.abs().mean(1, keepdim=True).expand_as(drift)
    return Track(values, values - half, values + half, drift, size)


tracks = st.builds(track, st.integers(1, 8), st.integers(1, 5), st.integers(0, 1000))


@given(tracks, st.integers(1, 10), st.sampled_from([0.0, 1.0, 0.5]), st.data())
def test_a_mean_carries_each_broadcast_over_the_drift_since(found, window, carry, data):
    end = data.draw(st.integers(0, found.last))
    carried = []
    for t in range(max(0, end - window + 1), end + 1):
        value = found.values[t].clone()
        for step in range(t, end):
            value += carry * found.drift[step]
        carried.append(value)
    naive = sum(carried) / len(carried)
    torch.testing.assert_close(found.mean(window, carry, end=end), naive, rtol=1e-9, atol=1e-12)


@given(tracks, st.integers(1, 10), st.sampled_from([0.0, 1.0]), st.data())
def test_a_prediction_looks_at_the_past_alone(found, window, carry, data):
    if found.last == 0:
        return
    target = data.draw(st.integers(1, found.last))
    ahead = found.mean(window, carry, end=target - 1) + carry * found.drift[target - 1]
    naive = float(((ahead - found.values[target]) ** 2).mean())
    assert found.prediction_error(window, carry, target=target) == pytest.approx(naive)


@given(tracks, st.sampled_from([0.0, 0.5, 2.0]))
def test_an_intersection_is_that_of_every_coordinate_on_its_own(found, spread):
    values, empty = found.intersection(spread)
    naive, gone = [], 0
    for c in range(found.values.shape[1]):
        low, high = float(found.low[0, c]), float(found.high[0, c])
        for t in range(1, found.last + 1):
            drift, slack = float(found.drift[t - 1, c]), spread * float(found.size[t - 1, c])
            low, high = (
                max(low + drift - slack, float(found.low[t, c])),
                min(high + drift + slack, float(found.high[t, c])),
            )
            if low > high:
                gone += 1
                low, high = float(found.low[t, c]), float(found.high[t, c])
        naive.append((low + high) / 2)
    np.testing.assert_allclose(values.numpy(), naive, rtol=1e-9, atol=1e-12)
    assert empty == pytest.approx(gone / max(found.last * found.values.shape[1], 1))


def test_the_truth_is_within_every_cell():
    servers = [adapter(0) + 0.01 * adapter(i + 1) for i in range(6)]
    for options in (NEAREST, {"bits": 2, "rounding": "stochastic"}, {**NEAREST, "double_quantization": True}):
        view = view_of(servers, **options)
        found = Track.of(view, broadcast_codec(view.facts))
        truth = torch.stack(servers).double()
        assert bool(((found.low <= truth) & (truth <= found.high)).all())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_resting_server_shows_through_stochastic_rounding(bits):
    """The mean of n broadcasts has 1/n of the error of one: 31/32 of it is gone."""
    server = adapter(0)
    view = view_of([server] * 32, bits=bits, rounding="stochastic")
    claim = run(view)
    removed = 1 - error(claim.state, server) / error(view.broadcasts[-1].state, server)
    assert removed >= 0.9
    assert removed == pytest.approx(31 / 32, abs=0.02)
    assert "mean of the last 32" in claim.note


def test_a_moving_server_shows_where_the_seats_own_updates_tell_how_it_moved():
    steps = [0.02 * adapter(i + 1) for i in range(31)]
    servers = [adapter(0)]
    for step in steps:
        servers.append(servers[-1] + step)
    known = view_of(servers, updates=steps, bits=2, rounding="stochastic")
    blind = view_of(servers, bits=2, rounding="stochastic")
    with_updates, without = (error(run(view).state, servers[-1]) for view in (known, blind))
    assert with_updates < 0.1 * error(known.broadcasts[-1].state, servers[-1])
    assert with_updates < without


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_exactly_known_drift_never_makes_nearest_rounding_worse(bits):
    steps = [0.05 * adapter(i + 1) for i in range(15)]
    servers = [adapter(0)]
    for step in steps:
        servers.append(servers[-1] + step)
    view = view_of(servers, updates=steps, bits=bits, rounding="nearest")
    claim = run(view)
    assert claim.note == "intersection, spread 0"
    assert error(claim.state, servers[-1]) <= error(view.broadcasts[-1].state, servers[-1])
    assert verdict(claim, view, servers[-1]).leakage_low > 0


def test_a_resting_server_repeats_its_errors_under_nearest_rounding():
    server = adapter(0)
    view = view_of([server] * 16, **NEAREST)
    claim = run(view)
    one = Smoothing(Smoothing.Config()).run(view_of([server] * 2, **NEAREST), np.random.default_rng(0))
    assert error(claim.state, server) == pytest.approx(error(one.state, server), rel=1e-6)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_unrelated_adapters_give_no_gain(rounding):
    servers = [adapter(i) for i in range(16)]
    view = view_of(servers, bits=4, rounding=rounding)
    found = verdict(run(view), view, servers[-1])
    assert found.leakage == pytest.approx(0.0, abs=0.05)
    assert found.leakage_low == 0.0


def test_the_head_is_claimed_as_it_was_sent_and_the_factors_are_whole(bench):
    view = view_of([adapter(0)] * 4, **NEAREST)
    claim = run(view)
    assert set(claim.state) == set(LAYOUT.names)
    assert all(claim.state[s.name].shape == s.shape for s in LAYOUT)


@given(st.integers(2, 5))
def test_two_broadcasts_are_enough_to_claim_something(count):
    for rounding in ("nearest", "stochastic"):
        claim = run(view_of([adapter(0)] * count, bits=2, rounding=rounding))
        assert all(bool(value.isfinite().all()) for value in claim.state.values())
