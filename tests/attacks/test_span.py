"""The span attack against small federations that are trained here, and against noise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qlorabench.attacks.span import Span, SpanConfig
from qlorabench.defenses.frozen_a import FrozenA, FrozenAConfig
from qlorabench.defenses.quantized_upload import QuantizedUpload, QuantizedUploadConfig
from qlorabench.federation.client import contribute
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.model import AdapterModel, initial_state
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import add, weighted_mean
from qlorabench.seeding import Seed
from qlorabench.suite.schema import HeadConfig, LoraConfig, TrainingConfig
from qlorabench.tasks.encoding import Encoded
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.lab import Lab
from qlorabench.threats.view import Broadcast, Update, View

torch.set_num_threads(1)

CLS, SEP, WORDS = 2, 3, 600
LENGTH = 8
TOKENIZER = SimpleNamespace(
    cls_token_id=CLS,
    sep_token_id=SEP,
    all_special_ids=[0, 1, CLS, SEP],
    decode=lambda ids, skip_special_tokens: " ".join(f"w{i}" for i in ids if i > SEP),
)


def backbone(**changes):
    """A random BERT whose layers have the names and the shape of the real one."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.15}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = BertConfig(vocab_size=WORDS, max_position_embeddings=16, **{**sizes, **rates, **changes})
        model = BertModel(config, add_pooling_layer=False)
    return model.eval().requires_grad_(False)


def texts_of(*rows):
    """Token ids between the special tokens, labels 0, 1, 0, ..."""
    ids = tuple(np.array([CLS, *row, SEP], dtype=np.int64) for row in rows)
    lengths = np.array([len(row) for row in ids])
    return Encoded(ids, np.arange(len(rows), dtype=np.int64) % 2, lengths, 0)


def texts(pool, *, rows=8, seed=0, words=(2, 5)):
    """Random texts over the tokens of ``pool``; every one of them occurs."""
    rng = np.random.default_rng(seed)
    drawn = [list(rng.choice(pool, rng.integers(*words), replace=False)) for _ in range(rows)]
    for i, word in enumerate(pool):
        if not any(word in row for row in drawn):
            drawn[i % rows] = [*drawn[i % rows][:4], word]
    return texts_of(*drawn)


def federate(*clients, defenses=(), rank=8, rounds=10, local_steps=4, batch_size=16, **optimizer):
    """Return the server's view of a federation of ``clients`` (`Encoded`) that is trained here."""
    model = AdapterModel(backbone(), LoraConfig(rank=rank, alpha=2.0 * rank), classes=2, width=64).eval()
    roles = ("A", "B") if all(d.trains("A") for d in defenses) else ("B",)
    schedule = {"rounds": rounds, "local_steps": local_steps, "batch_size": batch_size}
    facts = PublicFacts(
        backbone="tiny",
        lora=LoraConfig(rank=rank, alpha=2.0 * rank),
        head=HeadConfig(),
        training=TrainingConfig.model_validate({**schedule, "optimizer": {"lr": 0.5, **optimizer}}),
        client_rows=tuple(len(data) for data in clients),
        max_length=LENGTH,
        label_names=("no", "yes"),
        defenses=tuple(DefenseFacts(d.name, d.config.model_dump(mode="json")) for d in defenses),
        full=model.layout,
        travelling=model.layout.only(*roles),
    )
    start = initial_state(model, head=facts.head, seed=Seed(1, ("start",)))
    return observe(model, Protocol(facts, defenses), start, clients)


def observe(model, protocol, start, clients):
    facts, server = protocol.facts, {name: start[name] for name in protocol.facts.travelling.names}
    broadcasts, updates = [], []
    for round in range(facts.training.rounds):
        data = protocol.encode_broadcast(server, round=round, seed=Seed(1, ("down",)))
        broadcasts.append(Broadcast(round, data, {}, protocol.decode_broadcast(data, round=round)))
        for client, texts in enumerate(clients):
            seed = Seed(1, ("up",)).child(round, client)
            made = contribute(
                model,
                protocol,
                texts,
                data,
                previous=None,
                start=start,
                client=client,
                round=round,
                seed=seed,
                draws=seed,
            )
            state = protocol.decode_update(made.message, round=round, client=client)
            updates.append(Update(round, client, made.message, state))
        states = [u.state for u in updates if u.round == round]
        server = add(server, weighted_mean(states, [1.0] * len(states)))
    facets = {Capability.BROADCASTS: tuple(broadcasts), Capability.OTHERS_UPDATES: tuple(updates)}
    return View(threat="server", colluders=0, facts=facts, lab=Lab(model, TOKENIZER, start), _facets=facets)


def attack(view, seed=0, **config):
    return Span(SpanConfig(**config)).run(view, np.random.default_rng(seed))


def replaced(view, change):
    """Return ``view`` with every tensor of every update put through ``change(name, tensor)``."""
    states = [{name: change(name, value) for name, value in u.state.items()} for u in view.updates]
    updates = tuple(Update(u.round, u.client, u.data, state) for u, state in zip(view.updates, states, strict=True))
    facets = {Capability.BROADCASTS: view.broadcasts, Capability.OTHERS_UPDATES: updates}
    return View(threat="server", colluders=0, facts=view.facts, lab=view.lab, _facets=facets)


POOLS = np.array_split(np.random.default_rng(5).permutation(np.arange(10, WORDS))[:36], 2)


@pytest.fixture(scope="module")
def clients():
    return [texts(pool, seed=i) for i, pool in enumerate(POOLS)]


@pytest.fixture(scope="module")
def plain(clients):
    return federate(*clients)


def test_rounds_of_plain_lora_give_every_word_and_no_other(plain):
    claim = attack(plain)
    assert [c.client for c in claim.clients] == [0, 1]
    for said, pool in zip(claim.clients, POOLS, strict=True):
        assert said.tokens == set(pool.tolist()), said.note


def test_places_are_mostly_true_and_hold_no_special_token(plain, clients):
    for said, data in zip(attack(plain).clients, clients, strict=True):
        true = {(i, int(v)) for row in data.ids for i, v in enumerate(row)}
        assert len(said.placed & true) >= 0.6 * len(said.placed) > 0
        assert not {token for _, token in said.placed} & set(TOKENIZER.all_special_ids)


def test_the_claim_is_the_same_under_every_seed(plain):
    assert attack(plain, seed=1).clients[0].tokens == attack(plain, seed=2).clients[0].tokens


def test_another_clients_words_are_not_claimed(plain):
    claim = attack(plain)
    assert not claim.clients[0].tokens & claim.clients[1].tokens


def test_updates_with_shuffled_columns_give_nothing(plain):
    order = torch.from_numpy(np.random.default_rng(0).permutation(64))
    shuffled = replaced(plain, lambda name, x: x[:, order] if name.endswith(".A") else x)
    assert all(not said.tokens for said in attack(shuffled).clients)


def test_noise_gives_no_claim_in_twenty_tries(plain):
    for seed in range(10):  # two clients each
        scale = 10.0 ** np.random.default_rng(seed).uniform(-7, 0)
        noise = torch.Generator().manual_seed(seed)
        view = replaced(plain, lambda _, x: scale * torch.randn(x.shape, generator=noise))  # noqa: B023
        assert all(not said.tokens and not said.placed for said in attack(view, seed).clients)


def test_one_sentence_in_one_update_is_spelled_out():
    view = federate(texts_of([100, 200, 300, 201]), rounds=1, local_steps=3)
    said = attack(view).clients[0]
    assert said.placed == {(1, 100), (2, 200), (3, 300), (4, 201)}
    assert said.texts == ("w100 w200 w300 w201",)


def test_batches_of_one_are_spelled_out_update_by_update():
    data = texts_of([100, 200, 300], [400, 100, 77, 78])
    view = federate(data, rounds=8, local_steps=1, batch_size=1)
    assert set(attack(view).clients[0].texts) == {"w100 w200 w300", "w400 w100 w77 w78"}


FROZEN = FrozenA(FrozenAConfig())


def test_frozen_a_gives_a_short_sentence_whole():
    view = federate(texts_of([100, 200, 300, 201]), defenses=[FROZEN], rank=16, rounds=1, local_steps=2)
    said = attack(view).clients[0]
    assert said.tokens == {100, 200, 300, 201}
    assert said.texts == ("w100 w200 w300 w201",)


def test_frozen_a_hides_as_many_tokens_as_its_rank():
    view = federate(texts_of(range(100, 106)), defenses=[FROZEN], rank=8, rounds=2)
    said = attack(view).clients[0]
    assert not said.tokens
    assert "tokens >= rank 8" in said.note


def test_noise_under_frozen_a_gives_no_claim():
    view = federate(texts_of([100, 200]), texts_of([7, 8]), defenses=[FROZEN], rank=16, rounds=2)
    for seed in range(10):
        noise = torch.Generator().manual_seed(seed)
        thin = 1 + seed % 16  # of a rank that looks like tokens

        def draw(_, x, thin=thin, noise=noise):
            return 1e-3 * torch.randn(len(x), thin, generator=noise) @ torch.randn(thin, 16, generator=noise)

        assert all(not said.tokens for said in attack(replaced(view, draw), seed).clients)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_uploads_cost_words_and_no_precision(clients, bits):
    codec = QuantizedUpload(QuantizedUploadConfig(bits=bits, codebook="normal-float", block_size=32))
    claim = attack(federate(*clients, defenses=[codec]))
    for said, pool in zip(claim.clients, POOLS, strict=True):
        assert said.tokens <= set(pool.tolist())


@pytest.mark.parametrize("defenses", [(), (FROZEN,)])
def test_private_noise_is_known_for_noise(clients, defenses):
    view = federate(*clients, defenses=defenses, rounds=2)
    guarantee = {"noise_multiplier": 2.0, "sample_rate": 0.25, "steps": 8}
    private = DefenseFacts("dp-sgd", {"clip_norm": 1.0}, {"clients": [guarantee] * 2})
    sigma = 0.5 * 2.0 * 1.0 / (0.25 * 8) * 4**0.5  # lr z C / expected batch, four local steps
    noise = torch.Generator().manual_seed(0)
    noisy = replaced(view, lambda _, x: x + sigma * torch.randn(x.shape, generator=noise))
    facts = PublicFacts(**{**vars(view.facts), "defenses": (private,)})
    for said in attack(View("server", 0, facts, view.lab, noisy._facets)).clients:
        assert not said.tokens
        assert "nothing above the noise" in said.note


def test_updates_that_are_zero_or_not_finite_are_left_out(plain):
    empty = replaced(plain, lambda _, x: torch.zeros_like(x))
    broken = replaced(plain, lambda _, x: torch.full_like(x, torch.nan))
    for view in (empty, broken):
        assert {said.note for said in attack(view).clients} == {"no factor of layer 0 moved"}


def test_adamw_is_blind_at_plan_time_and_the_rest_is_not(plain):
    adam = TrainingConfig.model_validate({"optimizer": {"kind": "adamw", "lr": 1e-3}})
    span = Span(SpanConfig())
    assert "AdamW" in span.blind(PublicFacts(**{**vars(plain.facts), "training": adam}))
    assert span.blind(plain.facts) is None


def test_a_backbone_of_another_kind_is_said_so(plain, monkeypatch):
    monkeypatch.setattr(plain.lab.model.encoder.get_base_model().embeddings, "LayerNorm", None)
    claim = attack(plain)
    assert claim.clients == ()
    assert "LayerNorm" in claim.note


@pytest.mark.parametrize("change", [{"decoy_share": 1.0}, {"false_alarm": 0.0}, {"place_score": 0}, {"extra": 1}])
def test_thresholds_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SpanConfig(**change)


def test_sentences_of_one_batch_come_apart_in_the_second_layer():
    data = texts_of([100, 200, 300, 201], [400, 77, 78])  # one step each, too small to move the layer
    view = federate(data, rank=64, rounds=1, local_steps=2, batch_size=1, lr=1e-3)
    said = attack(view).clients[0]
    assert set(said.texts) == {"w100 w200 w300 w201", "w400 w77 w78"}
    assert said.placed == {(1, 100), (2, 200), (3, 300), (4, 201), (1, 400), (2, 77), (3, 78)}
