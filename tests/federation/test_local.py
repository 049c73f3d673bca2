import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.federation.bench import describe
from qlorabench.federation.defense import Schedule
from qlorabench.federation.local import (
    MICROBATCH,
    ShuffledBatches,
    by_length,
    make_optimizer,
    plain_training,
    schedule_factor,
)
from qlorabench.suite.schema import OptimizerConfig
from qlorabench.tasks.encoding import collate

from .systems import random_state, system


@given(rows=st.integers(1, 40), batch=st.integers(1, 50), steps=st.integers(0, 30), seed=st.integers(0, 9))
def test_a_pass_over_the_rows_repeats_none(rows, batch, steps, seed):
    drawn = list(ShuffledBatches(rows, batch, steps).batches(np.random.default_rng(seed)))
    size = min(rows, batch)
    per_pass = rows // size
    assert [len(b) for b in drawn] == [size] * steps
    for start in range(0, steps, per_pass):
        seen = np.concatenate(drawn[start : start + per_pass])
        assert len(set(seen.tolist())) == len(seen)
        assert set(seen.tolist()) <= set(range(rows))


def test_passes_are_shuffled_anew():
    first, second = ShuffledBatches(20, 20, 2).batches(np.random.default_rng(0))
    assert first.tolist() != second.tolist()


@given(
    kind=st.sampled_from(["constant", "linear", "cosine"]),
    rounds=st.integers(1, 500),
    data=st.data(),
)
def test_a_schedule_starts_whole_and_only_falls(kind, rounds, data):
    config = OptimizerConfig(schedule=kind)
    factors = [schedule_factor(config, round=r, rounds=rounds) for r in range(rounds)]
    assert factors[0] == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    assert all(a >= b for a, b in pairwise(factors))
    r = data.draw(st.integers(0, rounds - 1))
    expected = {"constant": 1.0, "linear": 1 - r / rounds, "cosine": (1 + math.cos(math.pi * r / rounds)) / 2}
    assert math.isclose(factors[r], expected[kind], abs_tol=1e-12)


def test_batches_hold_at_most_a_quarter_of_a_clients_rows():
    schedule = Schedule(rounds=1, local_steps=1, batch_size=8, client_rows=(1, 7, 16, 40))
    assert [schedule.batch(i) for i in range(4)] == [1, 1, 4, 8]


def parameters(*roles):
    return [torch.nn.Parameter(torch.ones(1)) for _ in roles], list(roles)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_head_has_its_own_rate_under_one_schedule(kind):
    config = OptimizerConfig(kind=kind, lr=0.4, head_lr=0.1)
    optimizer = make_optimizer(*parameters("A", "B", "head"), config, factor=0.5)
    assert [(len(g["params"]), g["lr"]) for g in optimizer.param_groups] == [(2, 0.2), (1, 0.05)]


def test_a_head_without_a_rate_of_its_own_learns_like_the_factors():
    optimizer = make_optimizer(*parameters("A", "head"), OptimizerConfig(lr=0.4), factor=1.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.4, 0.4]


def test_a_frozen_head_is_in_no_group():
    optimizer = make_optimizer(*parameters("B", "B"), OptimizerConfig(lr=0.4), factor=1.0)
    assert [len(g["params"]) for g in optimizer.param_groups] == [2]


def test_decay_and_momentum_reach_the_optimizer_they_are_for():
    adamw = make_optimizer(*parameters("B"), OptimizerConfig(kind="adamw", weight_decay=0.3), factor=1.0)
    sgd = make_optimizer(*parameters("B"), OptimizerConfig(momentum=0.9), factor=1.0)
    assert adamw.param_groups[0]["weight_decay"] == 0.3
    assert sgd.param_groups[0]["momentum"] == 0.9


@given(st.lists(st.integers(1, 30), max_size=60))
def test_parts_of_a_batch_are_small_sorted_by_length_and_complete(lengths):
    lengths = np.array(lengths, dtype=np.int64)
    parts = by_length(np.arange(len(lengths)), lengths)
    assert all(len(part) <= MICROBATCH for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    assert np.all(np.diff(lengths[np.concatenate(parts)]) >= 0)


class Fixed:
    """A sampler that draws what it is told."""

    def __init__(self, *batches):
        self.steps, self._batches = len(batches), batches

    def batches(self, rng):
        return iter(self._batches)


class Recorder:
    """An optimizer that only remembers the gradients it was to apply."""

    def __init__(self, parameters):
        self.parameters, self.seen = parameters, []

    def step(self):
        self.seen.append([p.grad.clone() for p in self.parameters])

    def zero_grad(self, set_to_none=True):
        for p in self.parameters:
            p.grad = None


@pytest.fixture
def mounted(bench):
    """Return the toy model under a random adapter, its parameters, their names, and a client's data."""
    spec = system()
    facts, _ = describe(bench, spec)
    model = bench.model(spec)
    model.load(random_state(facts.full))
    slots = model.train_only(facts.travelling)
    yield model, [p for _, p in slots], [s.name for s, _ in slots], bench.tasks[0].client(1)
    for _, p in slots:
        p.grad = None


def naive_gradient(model, parameters, data, rows):
    """Return the mean over ``rows`` of the gradients of one text each."""
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    for row in rows:
        logits = model(*collate(data, np.array([row])))
        loss = -torch.log_softmax(logits, dim=1)[0, data.labels[row]]
        gradients = torch.autograd.grad(loss, parameters)
        total = [t + g.double() / len(rows) for t, g in zip(total, gradients, strict=True)]
    return total


def test_microbatches_add_up_to_the_gradient_of_the_batch(mounted):
    model, parameters, _, data = mounted
    rows = np.arange(2 * MICROBATCH + 3)
    recorder = Recorder(parameters)
    drawn = plain_training(model, parameters, data, Fixed(rows), recorder).run(np.random.default_rng(0))
    assert [d.tolist() for d in drawn] == [rows.tolist()]
    assert len(recorder.seen) == 1
    for found, naive in zip(recorder.seen[0], naive_gradient(model, parameters, data, rows), strict=True):
        torch.testing.assert_close(found.double(), naive, rtol=1e-4, atol=1e-6)


def test_a_step_of_sgd_goes_down_the_gradient_at_the_rate(mounted):
    model, parameters, names, data = mounted
    rows = np.arange(5)
    expected = naive_gradient(model, parameters, data, rows)
    before = [p.detach().clone() for p in parameters]
    roles = ["head" if name.startswith("head.") else "B" for name in names]
    optimizer = make_optimizer(parameters, roles, OptimizerConfig(lr=0.4, head_lr=0.1), factor=0.5)
    plain_training(model, parameters, data, Fixed(rows), optimizer).run(np.random.default_rng(0))
    for old, new, gradient, role in zip(before, parameters, expected, roles, strict=True):
        rate = 0.05 if role == "head" else 0.2
        torch.testing.assert_close(new.detach().double(), old.double() - rate * gradient, rtol=1e-5, atol=1e-6)


def test_gradients_do_not_carry_over_from_step_to_step(mounted):
    model, parameters, _, data = mounted
    recorder = Recorder(parameters)
    rows = np.arange(4)
    plain_training(model, parameters, data, Fixed(rows, rows), recorder).run(np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(*recorder.seen, strict=True))


def test_a_changed_copy_runs_its_own_sampler(mounted):
    model, parameters, _, data = mounted
    training = plain_training(model, parameters, data, Fixed(np.arange(3)), Recorder(parameters))
    other = replace(training, sampler=Fixed(np.array([7]), np.array([8])))
    assert [rows.tolist() for rows in other.run(np.random.default_rng(0))] == [[7], [8]]
