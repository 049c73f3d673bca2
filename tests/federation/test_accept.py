"""Clients check what they are sent before they train from it."""

from pathlib import Path

import pytest
import torch

from qlorabench.federation.bench import describe
from qlorabench.federation.client import BroadcastRefused
from qlorabench.plugins import registry

from .systems import CLIENTS, QUANTIZED, ROUNDS, InProcess, ensure_trained, protocol_of, system, toy_bench, train

KEEPER = f"{Path(__file__).parent / 'keeper.py'}:Keeper"
SPEC = system((KEEPER, {}), QUANTIZED)


@pytest.fixture
def keeper(monkeypatch):
    cls = registry("defenses").load(KEEPER)
    monkeypatch.setattr(cls, "asked", [])
    return cls


def check(asked, store, rounds):
    protocol = protocol_of(SPEC)
    held = [protocol.decode_broadcast(store.transcript.data(m), round=0) for m in store.transcript.select("down")]
    _, start = describe(toy_bench(), SPEC)
    assert sorted((r, c) for r, c, *_ in asked) == [(r, c) for r in rounds for c in range(CLIENTS)]
    for round, _, received, previous, told in asked:
        assert all(torch.equal(received[name], held[round][name]) for name in held[round])
        assert (previous is None) == (round == 0)
        assert previous is None or all(torch.equal(previous[name], held[round - 1][name]) for name in previous)
        assert all(torch.equal(told[name], start[name]) for name in start)


def test_every_client_is_asked_with_the_broadcast_before(keeper, tmp_path):
    check(keeper.asked, train(SPEC, tmp_path), range(ROUNDS))


def test_a_run_that_goes_on_remembers_the_broadcast_before(keeper, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ensure_trained(InProcess(toy_bench(), jobs=1 + CLIENTS), SPEC, tmp_path)
    keeper.asked.clear()
    check(keeper.asked, train(SPEC, tmp_path), range(1, ROUNDS))


def test_a_refusal_ends_an_honest_federation_and_says_who_and_why(keeper, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "says", staticmethod(lambda c: "too loud" if (c.round, c.client) == (1, 2) else None))
    with pytest.raises(BroadcastRefused, match="client 2 refuses the broadcast of round 1: keeper: too loud"):
        train(SPEC, tmp_path)
