"""Dropout on clients: what it changes, that it repeats, and that nothing of it is left behind."""

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from qlorabench.errors import UserError
from qlorabench.federation.bench import describe, train_client
from qlorabench.federation.dropout import highest_rate, places, training_mode
from qlorabench.federation.protocol import Protocol
from qlorabench.seeding import Seed

from .systems import PRIVATE, system, toy_bench

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def encoder(rate=0.1):
    return BertModel(
        BertConfig(vocab_size=20, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate, **SMALL)
    ).eval()


def decoder(rate=0.0):
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, attention_dropout=rate, **SMALL)).eval()


def update(spec):
    """Return what the first client uploads in the first round."""
    bench = toy_bench()
    facts, start = describe(bench, spec)
    protocol = Protocol(facts, spec.build_defenses())
    travelling = {name: start[name] for name in facts.travelling.names}
    broadcast = protocol.encode_broadcast(travelling, round=0, seed=Seed(0))
    return train_client(bench, spec, facts, broadcast, None, 0, 0).message


@pytest.mark.parametrize("defenses", [(), (PRIVATE,)], ids=["plain", "dp-sgd"])
def test_a_rate_changes_the_update_and_the_same_seed_repeats_it(defenses):
    off = update(system(*defenses))
    before = torch.random.get_rng_state()
    first, again = (update(system(*defenses, dropout=0.3)) for _ in range(2))
    assert first == again
    assert first != off
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module.training for module in toy_bench().backbone.model.modules())


def test_off_is_the_default_and_a_model_without_dropout_is_as_it_is_off():
    assert system().task.training.dropout == "off"
    assert highest_rate(toy_bench().backbone.model, "model") == 0.0


@pytest.mark.parametrize("model", [encoder(), decoder(0.1)], ids=["layers", "rates of attention"])
def test_the_models_own_rates_are_found_and_used(model):
    assert highest_rate(model, "off") == 0.0
    assert highest_rate(model, "model") == pytest.approx(0.1)
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        still = model(ids)[0]
        with training_mode(model, "model", seed=Seed(0)):
            first = model(ids)[0]
        with training_mode(model, "model", seed=Seed(0)):
            again = model(ids)[0]
        with training_mode(model, "model", seed=Seed(1)):
            other = model(ids)[0]
        assert torch.equal(model(ids)[0], still)
    assert torch.equal(first, again)
    assert not torch.equal(first, still)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("model", [encoder(), decoder()], ids=["encoder", "decoder"])
def test_a_rate_holds_everywhere_and_is_given_back(model):
    before = [getattr(module, name) for module, name in places(model)]
    assert before
    with training_mode(model, 0.4, seed=Seed(0)):
        assert {getattr(module, name) for module, name in places(model)} == {0.4}
    assert [getattr(module, name) for module, name in places(model)] == before


def test_a_rate_without_a_place_is_told():
    with pytest.raises(UserError, match="no dropout layer"), training_mode(torch.nn.Linear(2, 2), 0.1, seed=Seed(0)):
        pass
