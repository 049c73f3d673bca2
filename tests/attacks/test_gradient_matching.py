"""Gradient matching and its parts, against gradients that are taken text by text."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._backdrop import Matched, Target, make_backdrop
from qlorabench.attacks._dictionary import read_dictionary
from qlorabench.attacks._drafts import Reader, few_texts
from qlorabench.attacks._exchange import Exchange
from qlorabench.attacks._observed import evenly
from qlorabench.attacks._relaxed import draw, make_body, written_words
from qlorabench.attacks._targets import stands_out
from qlorabench.attacks.attention_span import AttentionSpan, AttentionSpanConfig
from qlorabench.attacks.gradient_matching import Free, GradientMatching, GradientMatchingConfig, near_words, shaken
from qlorabench.defenses.frozen_a import FrozenA, FrozenAConfig

from .test_span import CLS, SEP, federate, replaced, texts_of

MODULE = "encoder.layer.0.attention.self.query"
FROZEN = FrozenA(FrozenAConfig())


@pytest.fixture(scope="module")
def frozen():
    return federate(texts_of([100, 200, 300, 201]), defenses=[FROZEN], rounds=1, local_steps=1)


@pytest.fixture
def body(frozen):
    frozen.lab.mount({})
    dictionary = read_dictionary(frozen.lab.model.encoder.get_base_model(), positions=8)
    return make_body(frozen.lab, dictionary, first_module=MODULE)


def attack(view, **config):
    return GradientMatching(GradientMatchingConfig(prior=None, **config)).run(view, np.random.default_rng(0)).clients


def test_embeddings_are_read_as_the_words_and_places_they_are(body):
    ids = torch.tensor([[100, 200, 300, 201], [7, 8, 9, 7]])
    assert torch.equal(body.read(body.embed(ids)), ids)
    places = body.model.encoder.get_base_model().embeddings.position_embeddings.weight.detach()
    order = torch.tensor([2, 0, 3, 1])  # slot s holds the word of place order[s], position included
    moved = body.embed(ids[0, order]) + places[1 + order] - places[1:5]
    assert torch.equal(body.read(moved[None])[0], ids[0])


def test_special_words_are_never_read(body):
    assert not {CLS, SEP} & set(written_words(body_tokenizer(), count=600).tolist())
    assert draw(body, (2, 3), np.random.default_rng(0)).shape == (2, 3, 64)


def body_tokenizer():
    from .test_span import TOKENIZER

    return TOKENIZER


def test_known_noise_drowns_a_tensor_by_its_power():
    value = torch.full((4, 5), 2.0)
    assert Target(value, 0.0).drowned == 0
    assert Target(value, 1.0).drowned == pytest.approx(1 / 3)
    assert Target(value, 4.0).drowned == Target(value, 9.0).drowned == 1000


def test_free_embeddings_at_words_are_near_these_words_where_they_stand(body):
    free = Free(body.embed(torch.tensor([[[100, 200, 300, 201]]])), [[3]])
    likely = near_words(body, free, words=20, longest=5)
    assert {100, 200, 300} <= set(likely.tokens.tolist())
    best = likely.tokens[likely.powers.argmax(0)]
    assert best[:3].tolist() == [100, 200, 300]
    assert likely.powers.shape == (20, 5)
    np.testing.assert_allclose(likely.powers.sum(0), 1, rtol=1e-5)


def test_shaken_texts_stand_in_order_with_slots_between_them(body):
    texts = [[100, 200, 300, 201], [7, 8]]
    free = shaken(body, texts, 5, np.random.default_rng(0))
    assert free.slots.shape == (4, 2, 5, 64)
    assert free.lengths == [[5, 4]] * 4
    for candidate in free.slots:
        near = [
            torch.cdist(row[None, :n], body.embed(torch.tensor(text))[None])[0]
            for row, n, text in zip(candidate, (5, 4), texts, strict=True)
        ]
        assert all(far.argmin(0).tolist() == sorted(far.argmin(0).tolist()) for far in near)


def test_clients_with_many_texts_an_update_are_passed_over(frozen):
    facts = replace(frozen.facts, client_rows=(64,))
    assert few_texts(frozen.facts, 0, asked=None) == 1
    assert few_texts(frozen.facts, 0, asked=7) == 7
    training = facts.training.model_copy(update={"local_steps": 5})
    assert few_texts(replace(facts, training=training), 0, asked=None) is None


def test_a_sentence_is_mostly_read_through_frozen_a(frozen):
    (said,) = attack(frozen, starts=4, cycles=3)
    assert len(said.tokens & {100, 200, 300, 201}) >= 3, said
    assert "distance" in said.note
    small = {"starts": 2, "probe": 2, "steps": 3, "cycles": 2, "rounds": 1, "words": 20}
    assert attack(frozen, **small) == attack(frozen, **small)


def test_noise_that_is_known_gives_no_claim(frozen):
    loud = [replace(u, noise={n: torch.ones_like(v) for n, v in u.state.items()}) for u in frozen.updates]
    facets = {**frozen._facets, next(k for k in frozen._facets if k == "others-updates"): tuple(loud)}
    (said,) = attack(replace(frozen, _facets=facets))
    assert (said.tokens, said.texts, said.note) == (frozenset(), (), "nothing above the noise")
    (said,) = attack(replaced(frozen, lambda _, x: torch.zeros_like(x)))
    assert said.note == "no factor moved"


def test_a_language_model_is_blind_at_plan_time(frozen):
    blind = GradientMatching(GradientMatchingConfig()).blind
    assert blind(frozen.facts) is None
    assert "language model" in blind(replace(frozen.facts, objective="language-modeling"))


def test_updates_are_picked_evenly():
    assert evenly([], 3) == []
    assert evenly(list("abcde"), 3) == ["a", "c", "e"]


def test_power_over_all_elements_shows_what_no_direction_does():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(64, 8)) for _ in range(18)]
    assert not stands_out(noise)
    assert stands_out([rows * 1.05 for rows in noise])
    assert stands_out([*noise[1:], noise[0] + 5 * np.outer(rng.normal(size=64), np.eye(8)[0])])


def test_under_noise_a_word_must_explain_more_than_one_at_random(frozen, body):
    state = {name: value for name, value in frozen.updates[0].state.items() if name.endswith(".B")}
    spread = 0.2 * max(float(value.std()) for value in state.values())
    draws = torch.Generator().manual_seed(0)
    targets = {n: Target(v + spread * torch.randn(v.shape, generator=draws), spread**2) for n, v in state.items()}
    exact = {name: Target(value, 0.0) for name, value in state.items()}
    text = [100, 200, 300, 201]
    noisy, plain = (
        Exchange(Matched(make_backdrop(body, t, lengths=[4], rng=np.random.default_rng(0)), [list(text)]), 6)
        for t in (targets, exact)
    )
    assert noisy.fit.word_cost > 0
    assert plain.fit.word_cost == 0
    words = torch.from_numpy(body.allowed)
    noisy.run([words] * 4, tries=8, moves=0, rng=np.random.default_rng(0))
    assert noisy.texts == [text]


def test_attention_span_puts_words_at_wrong_places_in_order(frozen, body):
    attack = AttentionSpan(AttentionSpanConfig(prior=None))
    wrong = frozenset({(CLS, 0), (200, 1), (100, 2), (201, 3), (300, 3), (SEP, 5)})
    found = attack._text(Reader(frozen, body), 0, 0, wrong, np.random.default_rng(0))
    assert found == {(CLS, 0), (100, 1), (200, 2), (300, 3), (201, 4), (SEP, 5)}
    others = frozenset({(CLS, 0), (7, 1), (8, 1), (9, 2), (SEP, 4)})
    assert (
        AttentionSpan(AttentionSpanConfig(prior=None, rounds=1))._text(
            Reader(frozen, body), 0, 0, others, np.random.default_rng(0)
        )
        is None
    )
