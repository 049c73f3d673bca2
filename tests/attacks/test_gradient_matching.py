"""Gradient matching and its parts, against gradients that are taken text by text."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._backdrop import Target
from qlorabench.attacks._dictionary import read_dictionary
from qlorabench.attacks._drafts import few_texts
from qlorabench.attacks._observed import evenly
from qlorabench.attacks._relaxed import draw, make_body, written_words
from qlorabench.attacks._rewriting import rewrite
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
    return GradientMatching(GradientMatchingConfig(**config)).run(view, np.random.default_rng(0)).clients


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


class Wanted:
    """Words that are wanted, in order."""

    def __init__(self, body, ids):
        self.goal = body.embed(torch.tensor(ids))

    def distance(self, slots, *, progress):
        length = min(slots.shape[2], len(self.goal))
        gap = ((slots[:, 0, :length] - self.goal[:length]) ** 2).mean((1, 2))
        return gap + abs(slots.shape[2] - len(self.goal))


@pytest.mark.parametrize("start", [[5, 6, 7], [200, 100, 300, 201, 9], [100, 200, 300]])
def test_rewriting_finds_what_is_wanted(body, start):
    ids = torch.tensor([start])
    found = rewrite(
        body, Wanted(body, [100, 200, 300, 201]), ids, rounds=80, tries=16, longest=6, rng=np.random.default_rng(0)
    )
    assert found.ids.tolist() == [[100, 200, 300, 201]]


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
