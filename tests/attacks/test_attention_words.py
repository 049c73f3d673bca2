"""Words from the covariances of heads: more tokens than a head has directions, decoys, and noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qlorabench.attacks._heads import Side
from qlorabench.attacks._powers import _gain, claimed_words, word_powers

from .dictionaries import made_up_dictionary

HEADS, WIDTH, RANK, D = 24, 16, 6, 60
VOCABULARY, PLACES = 150, 8


@pytest.fixture(scope="module")
def dictionary():
    return made_up_dictionary(VOCABULARY, PLACES, D)


def sides(dictionary, texts, *, noise=1e-6, seed=1):
    """Changes of two modules by heads: every text under random weights of attention, behind a random A."""
    rng = np.random.default_rng(seed)
    made = []
    for opened in (False, True):
        weight, bias = rng.normal(size=(HEADS, WIDTH, D)), rng.normal(size=(HEADS, WIDTH))
        changes = noise * rng.normal(size=(HEADS, WIDTH, RANK))
        factor = rng.normal(size=(D, RANK))
        opening = dictionary.inputs(np.array([0]), np.array([0]))[0]
        bias = bias if opened else -weight @ opening
        for text in texts:
            inputs = dictionary.inputs(np.array(text), np.arange(len(text)))
            atoms = weight @ inputs.T + bias[:, :, None]
            mix = rng.normal(size=(HEADS, len(text), len(text)))
            changes += atoms @ mix @ (inputs @ factor) / len(text)
        made.append(Side(changes / noise, weight / noise, bias / noise, opened))
    return made


def powers_of(dictionary, made):
    decoy = dictionary.decoy(np.random.default_rng(3).permutation(D))
    return word_powers(dictionary, decoy, made, opening=0, pool=400, words=40)


def texts_of(tokens, count, seed=0):
    words = np.random.default_rng(seed).permutation(np.arange(1, VOCABULARY))
    return [[0, *words[i * tokens : (i + 1) * tokens].tolist()] for i in range(count)]


@pytest.mark.parametrize(("tokens", "count"), [(5, 1), (7, 3)])
def test_words_of_several_texts_stand_out_beyond_the_width_of_a_head(dictionary, tokens, count):
    texts = texts_of(tokens, count)
    tokens_, powers, decoys = powers_of(dictionary, sides(dictionary, texts))
    claimed = set(claimed_words(tokens_, powers, decoys, above=2.0, share=5e-4).tolist())
    true = {word for text in texts for word in text[1:]}
    assert len(true) > 3
    assert len(claimed & true) >= 0.8 * len(true)
    assert len(claimed - true) <= 0.25 * len(claimed)


def test_noise_has_nothing_to_claim(dictionary):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = [replace(s, changes=rng.normal(size=s.changes.shape)) for s in sides(dictionary, texts_of(5, 1))]
        assert not len(claimed_words(*powers_of(dictionary, noise), above=2.0, share=5e-4))


def test_strong_random_changes_claim_next_to_nothing(dictionary):
    found = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        strong = [replace(s, changes=1e4 * rng.normal(size=s.changes.shape)) for s in sides(dictionary, texts_of(5, 1))]
        found += len(claimed_words(*powers_of(dictionary, strong), above=2.0, share=5e-4))
    assert found <= 10, "about one word in a try, of 40 that are looked at"


def test_the_true_powers_are_a_fixed_point_in_expectation():
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(10, 25)).astype(np.float32)
    powers = rng.gamma(1.0, 1.0, 25).astype(np.float32)
    changes = (atoms * powers**0.5) @ rng.normal(size=(25, 200_000)).astype(np.float32)
    assert np.allclose(_gain(atoms, changes, powers, 0.0), 1, atol=0.02)


@pytest.mark.parametrize(
    ("above", "share", "expected"), [(1.0, 0.01, [4, 7]), (3.0, 0.01, [7]), (1.0, 0.6, []), (1.0, 1e-6, [4, 7])]
)
def test_a_claim_beats_the_best_decoy_and_carries_a_share(above, share, expected):
    tokens, powers = np.array([7, 4, 9]), np.array([[0.4, 0.1], [0.1, 0.2], [0.1, 0.0]])
    decoys = np.array([[0.15, 0.0], [0.0, 0.01], [0.0, 0.0]])
    assert claimed_words(tokens, powers, decoys, above=above, share=share).tolist() == expected
