"""Whole texts from the columns of dB: exact under frozen A beyond the rank, silent where it must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._heads import Side
from qlorabench.attacks._pursuit import Pursuit
from qlorabench.attacks.attention_span import AttentionSpan, AttentionSpanConfig
from qlorabench.threats.capabilities import Capability

from ..federation.systems import FROZEN, PRIVATE, system, toy_bench, train
from ..threats.seats import PRESETS, view_of
from .dictionaries import made_up_dictionary

HEADS, WIDTH, RANK, D = 6, 24, 4, 60
VOCABULARY, PLACES = 200, 14


@pytest.fixture(scope="module")
def dictionary():
    return made_up_dictionary(VOCABULARY, PLACES, D)


def sides(dictionary, text, *, noise=1e-6, seed=1, queries=True):
    """The closed form: keys and queries of the text under random weights of attention, behind a random A."""
    rng = np.random.default_rng(seed)
    inputs = dictionary.inputs(np.array(text), np.arange(len(text)))
    made = []
    for opened in (False, True):
        weight, bias = rng.normal(size=(HEADS, WIDTH, D)), rng.normal(size=(HEADS, WIDTH))
        if not opened:
            bias = -weight @ inputs[0]
        atoms = weight @ inputs.T + bias[:, :, None]
        mix = rng.normal(size=(HEADS, len(text), len(text)))
        changes = atoms @ mix @ (inputs @ rng.normal(size=(D, RANK))) / len(text)
        changes += noise * rng.normal(size=changes.shape)
        made.append(Side(changes / noise, weight / noise, bias / noise, opened))
    return made


def read(dictionary, made, text):
    return Pursuit(dictionary, made, text[0], pool=1000, repairs=4).run()


@pytest.mark.parametrize("tokens", [3, 5, 9, 13])
def test_every_pair_of_a_text_longer_than_the_rank_is_found_and_no_other(dictionary, tokens):
    text = np.random.default_rng(tokens).integers(VOCABULARY, size=tokens).tolist()
    found = read(dictionary, sides(dictionary, text), text)
    assert found.complete
    assert found.pairs == {(token, place) for place, token in enumerate(text)} - {(text[0], 0)}


def test_a_word_that_stands_twice_is_found_at_both_places(dictionary):
    text = [7, 9, 9, 4, 9]
    found = read(dictionary, sides(dictionary, text), text)
    assert {(9, 1), (9, 2), (9, 4)} <= found.pairs


def test_pure_noise_explains_nothing_and_claims_nothing(dictionary):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = [replace(s, changes=rng.normal(size=s.changes.shape)) for s in sides(dictionary, [1, 2, 3])]
        assert read(dictionary, noise, [1]).pairs == frozenset()


def test_strong_random_changes_are_not_explained(dictionary):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        strong = [replace(s, changes=1e4 * rng.normal(size=s.changes.shape)) for s in sides(dictionary, [1, 2, 3])]
        assert not read(dictionary, strong, [1]).complete


def test_directions_below_the_noise_are_left_out(dictionary):
    text = [3, 8, 5, 6, 2]
    found = read(dictionary, sides(dictionary, text, noise=1e-2), text)
    assert found.pairs
    assert found.pairs <= {(token, place) for place, token in enumerate(text)}


def test_the_gradient_of_a_query_lies_in_the_span_of_the_keys_of_its_head():
    """The law that the attack rests on, against autograd: columns of dB_query, in each head, and of dB_key."""
    torch.manual_seed(0)
    tokens, width, rank = 5, 8, 3
    x = torch.randn(tokens, 12, dtype=torch.float64)
    wq, wk, wv = (torch.randn(width, 12, dtype=torch.float64) for _ in range(3))
    a = torch.randn(rank, 12, dtype=torch.float64)
    bq, bk = (torch.zeros(width, rank, dtype=torch.float64, requires_grad=True) for _ in range(2))
    q, k = x @ (wq + bq @ a).T, x @ (wk + bk @ a).T
    ((q @ k.T / width**0.5).softmax(-1) @ (x @ wv.T)).pow(2).sum().backward()
    keys, queries = (k - k[0])[1:].detach().T, q.detach().T
    for gradient, span in ((bq.grad, keys), (bk.grad, queries)):
        inside = span @ torch.linalg.lstsq(span, gradient).solution
        assert torch.allclose(inside, gradient, atol=1e-9)


ONE_TEXT = {"head": "frozen", "rank": 8, "local_steps": 1, "batch_size": 1}


def attacked(tmp_path, *defenses, **changes):
    spec = system(*defenses, **ONE_TEXT | changes)
    store = train(spec, tmp_path)
    view = view_of(spec, tmp_path, PRESETS["server"])
    return view, [store.secrets.batches(client) for client in range(view.facts.clients)]


def drawn(view, batches, client):
    special = set(view.lab.tokenizer.all_special_ids)
    encoded = toy_bench().tasks[0].encoded
    rows = {row for round in batches[client] for step in round for row in step}
    return {frozenset((i, int(t)) for i, t in enumerate(encoded.ids[row]) if int(t) not in special) for row in rows}


@pytest.mark.parametrize("defenses", [(FROZEN,), ()])
def test_each_text_of_a_federation_that_takes_one_a_step_is_read_in_order(tmp_path, defenses):
    view, batches = attacked(tmp_path, *defenses)
    claim = AttentionSpan(AttentionSpanConfig(prior=None)).run(view, np.random.default_rng(0))
    for said in claim.clients:
        true = drawn(view, batches, said.client)
        assert said.placed == frozenset().union(*true)
        assert len(said.texts) == len(true)


def test_an_update_that_moved_nothing_does_not_shift_the_others_rounds(tmp_path):
    view, batches = attacked(tmp_path, rounds=3)
    first, *rest = (u for u in view.updates if u.client == 1)
    still = replace(first, state={name: torch.zeros_like(value) for name, value in first.state.items()})
    blank = replace(view, _facets={**view._facets, Capability.OTHERS_UPDATES: (still, *rest)})
    claim = AttentionSpan(AttentionSpanConfig(prior=None)).run(blank, np.random.default_rng(0))
    said = next(texts for texts in claim.clients if texts.client == 1)
    assert len(said.texts) == len({row for round in batches[1][1:] for step in round for row in step})


def test_more_texts_than_a_head_is_wide_and_loud_noise_give_no_claim(tmp_path):
    for defenses, changes in (((FROZEN,), {"batch_size": 10}), ((FROZEN, PRIVATE), {})):
        view, _ = attacked(tmp_path, *defenses, **changes)
        claim = AttentionSpan(AttentionSpanConfig(prior=None)).run(view, np.random.default_rng(0))
        for said in claim.clients:
            few = view.facts.schedule.batch(said.client) * 4 <= 24
            assert not said.tokens or (few and not defenses[1:])


def test_adamw_and_rotary_targets_are_refused_when_the_suite_is_planned(tmp_path):
    view, _ = attacked(tmp_path)
    optimizer = view.facts.training.optimizer.model_copy(update={"kind": "adamw"})
    training = view.facts.training.model_copy(update={"optimizer": optimizer})
    lora = view.facts.lora.model_copy(update={"targets": ("q_proj", "k_proj")})
    attack = AttentionSpan(AttentionSpanConfig(prior=None))
    assert attack.blind(view.facts) is None
    assert "AdamW" in attack.blind(replace(view.facts, training=training))
    assert "rotary" in attack.blind(replace(view.facts, lora=lora))


def test_a_text_that_comes_again_is_not_searched_again(tmp_path, monkeypatch):
    view, batches = attacked(tmp_path, rounds=12)
    searches = []
    monkeypatch.setattr(
        "qlorabench.attacks.attention_span.Pursuit", lambda *a, **k: searches.append(a) or Pursuit(*a, **k)
    )
    claim = AttentionSpan(AttentionSpanConfig(prior=None)).run(view, np.random.default_rng(0))
    texts = [drawn(view, batches, said.client) for said in claim.clients]
    assert all(said.placed == frozenset().union(*true) for said, true in zip(claim.clients, texts, strict=True))
    assert len(searches) == sum(map(len, texts))
    assert len(searches) < sum(update.client >= view.colluders for update in view.updates)
