"""A malicious server's own run: clients that answer as in any federation, and stay out of its reach."""

import gc
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from qlorabench.federation.bench import describe
from qlorabench.federation.client import contribute
from qlorabench.federation.protocol import Protocol
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.threats.crafting import CraftedRun
from qlorabench.threats.lab import Lab
from qlorabench.threats.queries import Queries

from ..federation.systems import CLIENTS, QUANTIZED, ROUNDS, UPLOAD, system
from .reach import places_of, reachable

KEEPER = f"{Path(__file__).parents[1] / 'federation' / 'keeper.py'}:Keeper"


def run_of(bench, spec):
    facts, start = describe(bench, spec)
    protocol = Protocol(facts, spec.build_defenses())
    return CraftedRun(bench.model(spec), protocol, bench.tasks[0], start, spec.random.child("crafted"))


def state_of(run, scale=1.0):
    return {name: scale * run.start[name] for name in run.protocol.facts.travelling.names}


@pytest.mark.parametrize("defenses", [(), (QUANTIZED, UPLOAD)])
def test_a_reply_is_what_the_client_makes_of_the_broadcast(bench, defenses):
    spec = system(*defenses)
    run = run_of(bench, spec)
    clients = run.open()
    for round in range(ROUNDS):
        got = clients.send(state_of(run, 0.5), client=1)
        seed, draws = run.seed.child("round", round, "client", 1), Seed(0, ("batches", "crafted", str(round), "1"))
        made = contribute(
            bench.model(spec),
            run.protocol,
            bench.tasks[0].client(1),
            got.broadcast.data,
            previous=None,
            start=run.start,
            client=1,
            round=round,
            seed=seed,
            draws=draws,
        )
        assert (got.update.round, got.update.client, got.update.data) == (round, 1, made.message)
        held = run.protocol.decode_broadcast(got.broadcast.data, round=round)
        assert all(torch.equal(got.broadcast.state[name], held[name]) for name in held)


def test_its_batches_are_not_those_of_the_honest_federation(bench):
    run = run_of(bench, system())
    clients = run.open()
    first, second = (clients.send(state_of(run), client=1).update.state for _ in range(2))
    assert not any(torch.equal(first[name], second[name]) for name in first)
    rows = {int(row) for row in bench.tasks[0].client_rows[1]}
    assert run.drawn[1] <= rows
    assert run.requests == 2


def test_a_client_is_gone_after_the_rounds_of_the_federation(bench):
    run = run_of(bench, system())
    clients = run.open()
    assert clients.rounds == ROUNDS
    for _ in range(ROUNDS):
        clients.send(state_of(run), client=0)
    with pytest.raises(RuntimeError, match="gone after the 2 rounds"):
        clients.send(state_of(run), client=0)
    assert clients.send(state_of(run), client=2).update is not None


@pytest.mark.parametrize("odd", [{"more": torch.zeros(1)}, {"head.bias": torch.zeros(7)}])
def test_only_what_travels_can_be_sent(bench, odd):
    run = run_of(bench, system())
    with pytest.raises(RuntimeError, match="tensors that travel"):
        run.open().send({**state_of(run), **odd}, client=0)
    with pytest.raises(RuntimeError, match=f"client {CLIENTS} of {CLIENTS}"):
        run.open().send(state_of(run), client=CLIENTS)
    assert run.requests == 0


def test_a_refused_broadcast_has_no_reply_and_is_no_part_of_what_follows(bench, monkeypatch):
    keeper = registry("defenses").load(KEEPER)
    monkeypatch.setattr(keeper, "asked", [])
    monkeypatch.setattr(keeper, "says", staticmethod(lambda context: "no" if context.round == 1 else None))
    run = run_of(bench, system((KEEPER, {}), rounds=3))
    clients = run.open()
    replies = [clients.send(state_of(run, scale), client=1).update for scale in (1.0, 2.0, 3.0)]
    assert [reply is None for reply in replies] == [False, True, False]
    name = next(name for name in state_of(run) if name.endswith(".A"))
    before = [previous and float(previous[name].norm() / run.start[name].norm()) for *_, previous, _ in keeper.asked]
    assert before == [None, pytest.approx(1), pytest.approx(1)]


def test_an_error_comes_without_a_way_to_the_clients(bench):
    run = run_of(bench, system())
    clients = run.open()
    with pytest.raises(RuntimeError, match="diverged") as told:
        clients.send(state_of(run, float("nan")), client=0)
    assert told.value.__cause__ is None
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(told.value.__traceback__)]
    assert not {"answer", "contribute", "_update"} & set(frames)


def test_the_model_in_the_lab_sees_nothing_of_the_clients(bench):
    run = run_of(bench, system())
    model, seen = run.model, []
    model.load(run.start)
    clients = run.open()
    handles = [m.register_forward_pre_hook(lambda *a: seen.append(a)) for m in model.modules()]
    clients.send(state_of(run), client=0)
    for handle in handles:
        handle.remove()
    assert not seen
    assert all(torch.equal(value, run.start[name]) for name, value in model.state().items())
    assert all(p.grad is None for p in model.parameters())
    shared = {id(p) for p in model.parameters()} & {id(p) for p in run.model.parameters()}
    assert len(shared) == len(list(model.parameters())) - len(model.layout), "frozen weights are not copied"


def test_texts_are_out_of_reach_of_who_may_ask(bench):
    run = run_of(bench, system())
    clients = run.open()
    clients.send(state_of(run), client=0)
    blobs, _ = reachable(clients)
    assert not any(places_of(ids.tobytes(), blobs) for ids in bench.tasks[0].client(0).ids)
    direct, _ = reachable(run)
    assert places_of(bench.tasks[0].client(0).ids[0].tobytes(), direct), "the search finds them where they are"


def test_clients_leave_with_the_server(bench):
    before = set(threading.enumerate())
    clients = run_of(bench, system()).open()
    (served,) = set(threading.enumerate()) - before
    del clients
    gc.collect()
    served.join(5)
    assert not served.is_alive()


def test_queries_are_rows_whatever_is_remembered(bench):
    model, data = bench.model(system()), bench.tasks[0].client(1)
    lab = Lab(model, None, describe(bench, system())[1])
    with lab.queries.counting(model):
        for _ in range(2):
            lab.losses(lab.bare, data.take(np.arange(7)))
        model(torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4, dtype=torch.long))
    lab.mount({})(torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4, dtype=torch.long))
    assert lab.queries == Queries(2 * 7 + 3)
