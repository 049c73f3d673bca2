"""Texts that are matched against a whitened update, and its parts against gradients taken text by text."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks import _exchange
from qlorabench.attacks._backdrop import Matched, Target, explained, make_backdrop, text_gradients
from qlorabench.attacks._dictionary import read_dictionary
from qlorabench.attacks._exchange import Exchange, order_scores, other_orders
from qlorabench.attacks._gradients import example_gradients, linear_owners
from qlorabench.attacks._mixtures import Likely, descend_mixtures
from qlorabench.attacks._relaxed import make_body
from qlorabench.attacks.word_matching import WordMatching, WordMatchingConfig, likely_lengths
from qlorabench.defenses.frozen_a import FrozenA, FrozenAConfig
from qlorabench.threats.capabilities import Capability

from .test_span import federate, replaced, texts_of

MODULE = "encoder.layer.0.attention.self.query"
TEXTS = [[100, 200, 300, 201], [17, 330, 450]]


@pytest.fixture(scope="module")
def frozen():
    """The update of one step on a batch of two of eight texts, behind frozen A."""
    schedule = {"rounds": 1, "local_steps": 1, "batch_size": 2}
    view = federate(texts_of(*TEXTS * 4), defenses=[FrozenA(FrozenAConfig())], **schedule)
    view.lab.mount({**view.lab.start, **view.broadcasts[0].state})
    both = example_gradients(view.lab.model, texts_of(*TEXTS), np.arange(2), view.updates[0].state.keys())
    return replaced(view, lambda name, _: -0.5 * both[name].mean(0))


@pytest.fixture
def body(frozen):
    frozen.lab.mount({**frozen.lab.start, **frozen.broadcasts[0].state})
    dictionary = read_dictionary(frozen.lab.model.encoder.get_base_model(), positions=8)
    return make_body(frozen.lab, dictionary, first_module=MODULE)


@pytest.fixture
def backdrop(frozen, body):
    targets = {name: Target(value, 0.0) for name, value in frozen.updates[0].state.items() if name.endswith(".B")}
    return make_backdrop(body, targets, lengths=[3, 4], rng=np.random.default_rng(0))


def attack(view, **config):
    config = {"words": 30, "pool": 400, "starts": 1, "steps": 5, "rounds": 2, **config}
    return WordMatching(WordMatchingConfig(prior=None, **config)).run(view, np.random.default_rng(0)).clients


def test_gradients_of_texts_of_several_lengths_are_those_of_each_alone(body):
    trained = {
        n: 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(3)) for n, t in body.model.state().items()
    }
    body.model.load(trained)
    data, names = texts_of(*TEXTS), [f"{MODULE}.A", f"{MODULE}.B", "head.weight"]
    alone = example_gradients(body.model, data, np.arange(2), names)
    layers = linear_owners(body.model, names)
    found = text_gradients(body, layers, body.embed(torch.tensor([TEXTS[0], [*TEXTS[1], 0]])), [4, 3])
    for i, row in enumerate(data.ids):
        logits = body.model(torch.tensor(row)[None], torch.ones(1, len(row))).detach()[0]
        pull = torch.softmax(logits, 0)[1] - data.labels[i]  # how the loss pulls at the logits' difference
        for name in names:
            torch.testing.assert_close(pull * found[name][i, 0], alone[name][i], rtol=1e-3, atol=1e-5)


def test_the_signs_of_one_texts_gradients_are_explained_by_that_text(frozen, body):
    alone = example_gradients(body.model, texts_of(TEXTS[0]), np.arange(1), frozen.updates[0].state.keys())
    targets = {name: Target(-value[0].sign(), 0.0) for name, value in alone.items() if name.endswith(".B")}
    backdrop = make_backdrop(body, targets, lengths=[4], rng=np.random.default_rng(0), signs=True)
    rng = np.random.default_rng(1)
    assert Exchange(Matched(backdrop, [list(TEXTS[0])]), 6).share > 0.8
    assert max(Exchange(Matched(backdrop, [rng.integers(4, 600, 4).tolist()]), 6).share for _ in range(5)) < 0.5


def test_the_true_texts_explain_an_update_and_others_hardly_any_of_it(backdrop):
    rng = np.random.default_rng(1)
    assert Exchange(Matched(backdrop, [list(text) for text in TEXTS]), 6).share > 0.99
    others = [Exchange(Matched(backdrop, rng.integers(4, 600, size=(2, 4)).tolist()), 6).share for _ in range(5)]
    assert max(others) < 0.3


def test_the_more_words_are_right_the_more_is_explained(backdrop):
    shares = [
        Exchange(Matched(backdrop, [[100, 200, 300, 201][:right] + [500] * (4 - right), [17, 330, 450]]), 6).share
        for right in range(5)
    ]
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("start", "tries", "moves"),
    [
        ([100, 200, 55, 201], 40, 0),
        ([100, 300, 200, 201], 40, 100),
        ([100, 300, 201], 0, 0),
        ([100, 200, 300, 17, 201], 0, 0),
    ],
)
def test_a_search_puts_a_wrong_word_order_or_length_right(backdrop, start, tries, moves):
    search = Exchange(Matched(backdrop, [start, [17, 330, 450]]), 6)
    search.run([torch.from_numpy(backdrop.body.allowed)] * 4, tries=tries, moves=moves, rng=np.random.default_rng(0))
    assert search.texts == TEXTS
    assert search.complete


def test_where_no_word_is_left_to_exchange_texts_stay(backdrop):
    search = Exchange(Matched(backdrop, [[100]]), 1)
    search.run([torch.tensor([100])] * 2, tries=5, moves=5, rng=np.random.default_rng(0))
    assert search.texts == [[100]]


def test_other_orders_are_swaps_and_segments_that_moved():
    assert other_orders([5]) == []
    assert other_orders([5, 6]) == [(1, 0)]
    assert other_orders([5, 5]) == []
    orders = other_orders(list(range(8)))
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == len(orders)
    assert (0, 6, 2, 3, 4, 5, 1, 7) in orders
    assert (5, 6, 7, 0, 1, 2, 3, 4) in orders
    assert tuple(range(8)) not in orders
    read = [tuple("abab"[i] for i in order) for order in other_orders([1, 2, 1, 2])]
    assert len(set(read)) == len(read)
    assert tuple("abab") not in read


def test_orders_are_as_likely_as_their_words_after_each_other():
    after = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 4)))
    naive = [
        after[0, 2] + after[3, 0] + after[1, 1] + after[2, 3],
        after[0, 0] + after[1, 1] + after[2, 2] + after[3, 3],
    ]
    assert order_scores(after, [(2, 0, 1), (0, 1, 2)]) == pytest.approx([float(x) for x in naive])


def test_a_text_of_one_word_has_no_other_order():
    assert order_scores(torch.zeros(2, 2), []).shape == (0,)


class Certain:
    """A prior that knows which text is said."""

    def __init__(self, text):
        self.next = dict(zip([-1, *text], [*text, -1], strict=True))

    def after(self, text):
        chances = torch.full((len(text) + 1, 601), -9.0)
        for row, word in zip(chances, [-1, *text], strict=True):
            if word in self.next:
                row[self.next[word]] = 0.0
        return chances


def test_the_prior_says_which_orders_are_looked_at(backdrop):
    start = [201, 100, 200, 300]  # a segment that moved, one of nine other orders
    for prior, found in ((Certain(TEXTS[0]), True), (Certain(start), False)):
        search = Exchange(Matched(backdrop, [list(start), [17, 330, 450]]), 6, prior)
        search._reorder(0, 2, np.random.default_rng(0))
        assert (search.texts == TEXTS) is found


def test_the_prior_says_which_words_are_tried(backdrop, monkeypatch):
    monkeypatch.setattr(_exchange, "_LIKELY", 1)
    search = Exchange(Matched(backdrop, [[100, 200, 55, 201], [17, 330, 450]]), 6, Certain(TEXTS[0]))
    words = torch.from_numpy(backdrop.body.allowed)
    assert (2, 300) in search._moves(search.fit.place(0), words)


def test_mixtures_of_few_words_end_at_the_texts(backdrop):
    tokens = np.array(sorted({*TEXTS[0], *TEXTS[1], 55, 66, 77}))
    likely = Likely(tokens, np.ones((len(tokens), 4)))
    rng = np.random.default_rng(0)
    ends = descend_mixtures(backdrop, likely, [[4, 3]] * 4, steps=60, rate=0.2, rng=rng)
    best = max((Exchange(Matched(backdrop, texts), 6) for texts in ends), key=lambda search: search.share)
    true = {word for text in TEXTS for word in text}
    assert len(true & {word for text in best.texts for word in text}) >= 5
    assert [len(text) for text in best.texts] == [4, 3]


def test_what_is_explained_is_the_squared_cosine_with_the_span():
    rng = np.random.default_rng(0)
    features, target = torch.from_numpy(rng.normal(size=(3, 2, 50))), torch.from_numpy(rng.normal(size=50))
    for one, share in zip(features, explained(features, target), strict=True):
        basis = torch.linalg.qr(one.T)[0]
        naive = float((basis.T @ target).square().sum() / target.square().sum())
        assert float(share) == pytest.approx(naive, rel=1e-3)


def test_lengths_follow_from_where_texts_end():
    ends = np.zeros(11)
    ends[[4, 9]] = 1.0, 3.0  # closing tokens at positions 5 and 10, one text and three
    rng = np.random.default_rng(0)
    assert likely_lengths(ends, texts=4, rng=rng) == [4, 9, 9, 9]
    assert likely_lengths(np.zeros(11), texts=2, rng=rng) == [10, 10]


def test_the_attack_gives_as_many_texts_as_were_drawn_and_the_same_ones_twice(frozen):
    (said,) = attack(frozen)
    assert len(said.texts) == 2
    assert "distance" in said.note
    assert attack(frozen) == attack(frozen)


def test_noise_and_silence_give_no_claim(frozen):
    loud = [replace(u, noise={n: torch.ones_like(v) for n, v in u.state.items()}) for u in frozen.updates]
    (said,) = attack(replace(frozen, _facets={**frozen._facets, Capability.OTHERS_UPDATES: tuple(loud)}))
    assert (said.tokens, said.texts, said.note) == (frozenset(), (), "no word stands out")
    (said,) = attack(replaced(frozen, lambda _, x: torch.zeros_like(x)))
    assert said.note == "no factor B moved"


def test_it_is_blind_to_language_models_and_adaptive_optimizers(frozen):
    blind = WordMatching(WordMatchingConfig()).blind
    assert blind(frozen.facts) is None
    assert "language model" in blind(replace(frozen.facts, objective="language-modeling"))
    optimizer = frozen.facts.training.optimizer.model_copy(update={"kind": "adamw"})
    training = frozen.facts.training.model_copy(update={"optimizer": optimizer})
    assert "AdamW" in blind(replace(frozen.facts, training=training))
