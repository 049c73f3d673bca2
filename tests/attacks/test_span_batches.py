"""Texts told apart by the rounds in which their words come and go, and put in order by the second layer."""

import numpy as np
import pytest

from qlorabench.attacks._batches import _turns, read_batches
from qlorabench.attacks._dictionary import make_dictionary, read_dictionary
from qlorabench.attacks._rosters import find_rosters, read_shares, seat_words

from .test_span import LENGTH, attack, federate, replaced, texts_of

RNG = np.random.default_rng
D, M = 48, 6
TEXTS = ((0, 1, 2, 3), (0, 4, 5, 2, 6), (0, 7, 8, 9), (0, 10, 1, 11))
BATCHES = ((0, 1), (1, 2), (0, 3), (2, 3), (0, 2), (1, 3))
SHARED = (0, 1, 2)


def federation(noise=1.0, signal=1e4, seed=0, batches=BATCHES):
    """Return a dictionary, and whitened rows (24, d) of each round: combinations of the inputs of its texts."""
    rng = RNG(seed)
    dictionary = make_dictionary(
        rng.normal(size=(40, D)), places=rng.normal(size=(M, D)), gain=np.ones(D), shift=rng.normal(size=D), epsilon=0
    )
    steps = rng.normal(size=(len(TEXTS), 4, 24))  # every text has gradients of a few directions
    mixes = [rng.normal(size=(len(text), 4)) for text in TEXTS]
    rounds = []
    for batch in batches:
        rows = noise * rng.normal(size=(24, D))
        for text in batch:
            drift = steps[text] + 0.3 * rng.normal(size=steps[text].shape)
            inputs = dictionary.inputs(np.array(TEXTS[text]), np.arange(len(TEXTS[text])))
            rows = rows + signal * (mixes[text] @ drift).T @ inputs
        rounds.append(rows)
    return dictionary, rounds


def shares_of(**changes):
    dictionary, rounds = federation(**changes)
    return read_shares(dictionary, rounds, tokens=np.arange(12), false_alarm=1e-6)


def test_a_round_has_the_words_of_its_texts_and_no_others():
    shares = shares_of()
    for round, batch in enumerate(BATCHES):
        assert set(np.flatnonzero(shares.present[round])) == {word for text in batch for word in TEXTS[text]}
        assert shares.occupied[round].sum() == max(len(TEXTS[text]) for text in batch)


def test_noise_has_no_word_more_often_than_it_may():
    dictionary, _ = federation()
    rounds = [RNG(seed).normal(size=(24, D)) for seed in range(200)]
    assert not read_shares(dictionary, rounds, tokens=np.arange(12), false_alarm=1e-3).present.any()


def test_rosters_are_the_rounds_of_each_text():
    rosters = find_rosters(shares_of().present, batch=2, texts=4)
    assert {tuple(roster) for roster in rosters} == {tuple(text in batch for batch in BATCHES) for text in range(4)}


def test_no_roster_of_texts_that_are_always_there():
    assert find_rosters(np.ones((5, 7), bool), batch=2, texts=2).shape == (0, 5)


def test_own_words_sit_at_their_place_and_shared_ones_mostly():
    shares = shares_of()
    rosters = find_rosters(shares.present, batch=2, texts=4)
    for roster, seating in zip(rosters, seat_words(shares, rosters), strict=True):
        (text,) = (
            t for t in range(4) if all((t in batch) == there for batch, there in zip(BATCHES, roster, strict=True))
        )
        own = [word for word in TEXTS[text] if word not in SHARED]
        assert set(seating.words[seating.own]) == set(own)
        for word in own:
            (index,) = np.flatnonzero(seating.words == word)
            assert seating.distances[:, index].argmin() == TEXTS[text].index(word)


def test_turns_are_exchanges_and_moves_of_one_word():
    turned = list(_turns((2, 10, 11, 12, 3)))
    assert set(turned) == {(2, *p, 3) for p in [(11, 10, 12), (12, 11, 10), (11, 12, 10), (12, 10, 11), (10, 12, 11)]}
    assert not list(_turns((2, 10, 3)))


WORDS = texts_of([100, 101, 102, 50], [200, 50, 201, 202], [300, 301, 50], [400, 51, 401, 402], [51, 500, 501, 502])


@pytest.fixture(scope="module")
def batches():
    return federate(WORDS, rank=8, rounds=14, local_steps=1, batch_size=2, lr=0.1)


def test_texts_of_small_batches_are_read_whole_over_the_rounds(batches):
    said = attack(batches).clients[0]
    true = {" ".join(f"w{t}" for t in ids[1:-1]) for ids in WORDS.ids}
    assert len(set(said.texts) & true) >= 4
    assert set(said.texts) <= true, "what is claimed is right"


def test_noise_in_place_of_updates_gives_no_text(batches):
    import torch

    generator = torch.Generator().manual_seed(0)
    noisy = replaced(batches, lambda _, x: x.std() * torch.randn(x.shape, generator=generator))
    assert attack(noisy).clients[0].texts == ()


def drafts_of(view, budget=100_000):
    dictionary = read_dictionary(view.lab.model.encoder.get_base_model(), positions=LENGTH)
    tokens = np.unique(np.concatenate(WORDS.ids))
    return read_batches(
        view, dictionary, client=0, tokens=tokens, share=0.3, false_alarm=1e-6, budget=budget, rng=RNG(0)
    )


def test_right_words_and_rosters_are_no_text_where_the_second_layer_is_noise(batches):
    import torch

    generator = torch.Generator().manual_seed(0)
    noise = lambda x: x.std() * torch.randn(x.shape, generator=generator)  # noqa: E731
    view = replaced(batches, lambda name, x: noise(x) if "layer.1." in name else x)
    found = drafts_of(view)
    assert len(found.drafts) == len(WORDS.ids)
    found.settle()
    assert found.claimed() == []


def test_a_budget_ends_the_descent(batches):
    patient, hasty = drafts_of(batches), drafts_of(batches, budget=0)
    for found in (patient, hasty):
        found.settle()
    assert hasty.spent < patient.spent
    assert len(patient.claimed()) >= 4


def test_texts_that_are_in_every_round_stay_one_heap():
    always = federate(WORDS, rank=8, rounds=6, local_steps=5, batch_size=1, lr=0.1)
    assert drafts_of(always) is None
