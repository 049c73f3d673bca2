"""Gradient matching and its parts, against gradients that are taken text by text."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._dictionary import read_dictionary
from qlorabench.attacks._gradients import example_gradients
from qlorabench.attacks._matching import Matching, make_target
from qlorabench.attacks._observed import evenly
from qlorabench.attacks._relaxed import draw, make_body, written_words
from qlorabench.attacks._rewriting import rewrite
from qlorabench.attacks._targets import label_mix
from qlorabench.attacks.gradient_matching import GradientMatching, GradientMatchingConfig
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


def test_the_gradients_of_two_texts_are_the_sum_of_each(frozen, body):
    data = texts_of([100, 200, 300], [7, 8, 9])
    trained = {
        n: 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(3)) for n, t in body.model.state().items()
    }
    body.model.load(trained)
    names = [f"{MODULE}.A", f"{MODULE}.B", "head.weight"]
    alone = example_gradients(body.model, data, np.arange(2), names)
    targets = {name: make_target(torch.ones(body.model.state()[name].shape)) for name in names}
    objective = Matching(body, targets, torch.tensor([[0, 1]]))
    ids = torch.tensor([[row[1:-1] for row in np.stack(data.ids).tolist()]])
    found = objective._gradients(body.embed(ids))
    for name in names:
        torch.testing.assert_close(found[name][0], alone[name].sum(0), rtol=1e-3, atol=1e-4)


def test_the_distance_is_zero_at_the_truth_and_two_under_the_other_label(frozen, body):
    update = frozen.updates[0].state
    targets = {n: make_target(-v) for n, v in update.items() if n.endswith(".B")}
    slots = body.embed(torch.tensor([[[100, 200, 300, 201]]]))
    far = [float(Matching(body, targets, torch.tensor([[y]])).distance(slots, progress=1.0)) for y in (0, 1)]
    assert far == pytest.approx([0.0, 2.0], abs=1e-3)
    signs = {n: make_target(-v.sign()) for n, v in update.items() if n.endswith(".B")}
    assert float(Matching(body, signs, torch.tensor([[0]]), signs=True).distance(slots, progress=1.0)) < 0.1


def test_a_whitened_target_has_equal_strengths_above_the_noise_alone():
    value = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.3, 0.1])
    free, noisy = make_target(value), make_target(value.T, variance=0.09)
    strengths = torch.linalg.svdvals(free.value @ free.whitener(1.0))
    torch.testing.assert_close(strengths, torch.ones(3), atol=1e-3, rtol=0)
    assert torch.linalg.svdvals(noisy.value @ noisy.whitener(1.0))[-1] < 0.4


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


def test_labels_follow_from_the_heads_bias():
    assert label_mix(torch.tensor([-0.4, 0.4]), 1).tolist() == [1]
    assert label_mix(torch.tensor([0.3, -0.3]), 4).tolist() == [0, 0, 0, 1]


def test_a_sentence_is_mostly_read_through_frozen_a(frozen):
    (said,) = attack(frozen, steps=120, rounds=40, tries=12, length=6)
    assert len(said.tokens & {100, 200, 300, 201}) >= 3, said
    assert "distance" in said.note
    assert attack(frozen, steps=5, rounds=2, length=6) == attack(frozen, steps=5, rounds=2, length=6)


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
