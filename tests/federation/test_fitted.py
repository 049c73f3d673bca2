"""A client with nothing left to learn sends a zero update; an optimizer that misses the adapter is an error."""

import pytest
import torch

from qlorabench.federation.bench import describe
from qlorabench.federation.client import contribute
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import max_abs_difference
from qlorabench.seeding import Seed

from .systems import SYSTEMS, system, train


def one_client(bench, spec, server=None):
    facts, start = describe(bench, spec)
    protocol = Protocol(facts, spec.build_defenses())
    server = server or {name: start[name] for name in facts.travelling.names}
    made = contribute(
        bench.model(spec),
        protocol,
        bench.tasks[0].client(0),
        protocol.encode_broadcast(server, round=0, seed=spec.random),
        previous=None,
        start=start,
        client=0,
        round=0,
        seed=spec.random,
        draws=Seed(0, ("batches",)),
    )
    return made, protocol.decode_update(made.message, round=0, client=0)


def fitted(bench, spec):
    """An adapter whose head is so sure of each row that its loss, and all gradients, are zero."""
    facts, start = describe(bench, spec)
    data = bench.tasks[0].client(0)
    model = bench.model(spec)
    model.load(start)
    hidden = []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].detach()))
    ids = [torch.as_tensor(row)[None] for row in data.ids]
    for row in ids:
        model(row, torch.ones_like(row))
    handle.remove()
    features = torch.cat(hidden)
    signs = torch.as_tensor(data.labels).float() * 2 - 1
    direction = torch.linalg.lstsq(features, signs[:, None]).solution[:, 0]
    weight = torch.stack([-direction, direction]) * 1e4
    return {**{name: start[name] for name in facts.travelling.names}, "head.weight": weight}


def test_a_client_that_has_fitted_its_rows_sends_a_zero_update(bench):
    spec = system()
    made, update = one_client(bench, spec, fitted(bench, spec))
    assert made.zero
    assert max_abs_difference(update, {name: torch.zeros_like(value) for name, value in update.items()}) == 0.0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_below_the_resolution_of_the_weights_is_no_error(bench, optimizer):
    made, _ = one_client(bench, system(optimizer={"kind": optimizer, "lr": 1e-60, "weight_decay": 0.0}))
    assert made.zero


def test_a_client_that_learns_sends_no_zero(bench):
    assert not one_client(bench, system())[0].zero


def test_a_loss_that_gives_the_adapter_no_gradient_is_an_error(bench, monkeypatch):
    def constant(objective, logits, ids, mask, labels):
        return torch.zeros(len(labels), requires_grad=True)

    monkeypatch.setattr("qlorabench.federation.local.example_losses", constant)
    with pytest.raises(RuntimeError, match="gives no tensor that travels a gradient"):
        one_client(bench, system())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_optimizer_that_steps_something_else_is_an_error(bench, monkeypatch, optimizer):
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        monkeypatch.setattr(kind, "step", lambda self, closure=None: None)
    with pytest.raises(RuntimeError, match="the optimizer does not reach the adapter"):
        one_client(bench, system(optimizer={"kind": optimizer, "lr": 1e-3}))


@pytest.mark.parametrize("defenses", ["plain", "both-directions"])
def test_zero_updates_are_counted_and_the_federation_goes_on(tmp_path, defenses):
    store = train(system(*SYSTEMS[defenses], optimizer={"lr": 1e-60}), tmp_path)
    assert store.finished
    assert store.secrets.zero_updates() == [(round, client) for round in range(2) for client in range(3)]
