"""Gradients of single examples against autograd, one example at a time."""

import numpy as np
import pytest
import torch

from qlorabench.attacks._gradients import example_gradients
from qlorabench.federation.losses import example_losses
from qlorabench.tasks.encoding import collate

from ..federation.language import language_bench, language_system
from ..federation.systems import random_state, system

ROWS = np.array([5, 3, 9, 0])


@pytest.fixture(scope="module")
def model(bench):
    model = bench.model(system())
    model.load(random_state(model.layout))
    return model


def one_by_one(model, data, rows, names):
    found = {name: [] for name in names}
    for row in rows:
        wanted = {s.name: p for s, p in model.train_only(model.layout) if s.name in names}
        ids, mask = collate(data, np.array([row]))
        loss = example_losses(model.objective, model(ids, mask), ids, mask, data.labels[[row]]).sum()
        for name, gradient in zip(wanted, torch.autograd.grad(loss, wanted.values()), strict=True):
            found[name].append(gradient)
    return {name: torch.stack(parts) for name, parts in found.items()}


@pytest.mark.parametrize("roles", [("A", "B", "head"), ("B",), ("A",)])
def test_every_example_has_the_gradient_that_autograd_gives_it_alone(bench, model, roles):
    data, names = bench.tasks[0].encoded, model.layout.only(*roles).names
    assert len(set(data.lengths[ROWS])) > 1  # padding must not matter
    ours, alone = example_gradients(model, data, ROWS, names), one_by_one(model, data, ROWS, names)
    assert set(ours) == set(names)
    for name in names:
        assert ours[name].shape == alone[name].shape
        torch.testing.assert_close(ours[name], alone[name], rtol=1e-4, atol=1e-6)


def test_of_language_models_as_well():
    bench = language_bench()
    model, data = bench.model(language_system()), bench.tasks[0].encoded
    model.load(random_state(model.layout))
    ours = example_gradients(model, data, ROWS, model.layout.names)
    alone = one_by_one(model, data, ROWS, model.layout.names)
    for name in model.layout.names:
        torch.testing.assert_close(ours[name], alone[name], rtol=1e-4, atol=1e-6)


def test_the_model_is_left_without_hooks_and_gradients(bench, model):
    model.zero_grad(set_to_none=True)  # the bench's model may have been trained on by another test
    example_gradients(model, bench.tasks[0].encoded, ROWS, model.layout.names)
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert all(p.grad is None for p in model.parameters())
