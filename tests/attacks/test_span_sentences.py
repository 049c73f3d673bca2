"""Sentences from the second layer: searches and prefixes against known answers, and the whole on tiny models."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qlorabench.attacks._assembly import Search, near_misses
from qlorabench.attacks._dictionary import make_rotary_dictionary, read_dictionary
from qlorabench.attacks._forward import branch_inputs, layer_inputs
from qlorabench.attacks._glass import Glass, distance
from qlorabench.attacks._prefixes import Growth
from qlorabench.attacks._subspace import Space, nearest_words

FIRST, LAST = 2, 3
TRUTH = ((2, 10, 11, 12, 13, 3), (2, 20, 21, 22, 3), (2, 10, 31, 32, 33, 34, 3))


def wrongness(sentences):
    """A graded score: the share of tokens in which a sentence differs from the true one of its length."""
    true = {len(sentence): sentence for sentence in TRUTH}
    return np.array([np.mean([a != b for a, b in zip(s, true[len(s)], strict=True)]) for s in sentences])


def search(score=wrongness, tries=10):
    return Search(score, FIRST, LAST, 0.3, 600, tries, 10_000, np.random.default_rng(0))


def pairs_of(sentences):
    return frozenset((token, i) for sentence in sentences for i, token in enumerate(sentence))


def test_a_search_finds_every_sentence_among_their_pairs():
    pairs = pairs_of(TRUTH)
    assert set(search().sentences(pairs, inputs=len(pairs))) == set(TRUTH)


def test_pairs_of_no_sentence_stay_unused():
    pairs = pairs_of(TRUTH)
    assert set(search().sentences(pairs | {(99, 2), (98, 1)}, inputs=len(pairs))) == set(TRUTH)


def test_shares_put_likely_pairs_first_and_leave_no_other_out():
    true = pairs_of(TRUTH)
    others = frozenset((token, place) for token in range(40, 46) for place in range(1, 6))
    asked = []

    def score(sentences):
        asked.append(len(sentences))
        return wrongness(sentences)

    def find(shares):
        asked.clear()
        assert set(search(score, tries=200).sentences(true | others, inputs=len(true), shares=shares)) == set(TRUTH)
        return sum(asked)

    sure = dict.fromkeys(true, 1.0) | dict.fromkeys(others, 0.01)
    assert find(sure) < find({})
    assert find(sure | {(21, 2): 0.0}) > find(sure)


def test_a_known_sentence_is_not_searched_for():
    pairs, asked = pairs_of(TRUTH[:1]), []

    def score(sentences):
        asked.extend(sentences)
        return wrongness(sentences)

    assert search(score).sentences(pairs, inputs=len(pairs), known=TRUTH[:1]) == TRUTH[:1]
    assert len(asked) < 60  # the sentence and its decoys


def test_a_score_without_a_gap_gives_no_sentence():
    rng = np.random.default_rng(1)
    pairs = pairs_of(TRUTH)
    assert search(lambda s: 0.5 + 0.1 * rng.random(len(s)), tries=3).sentences(pairs, inputs=len(pairs)) == ()


def test_near_misses_are_near_and_missed():
    made = near_misses(TRUTH[0], words=600, rng=np.random.default_rng(0))
    assert made
    for decoy in made:
        assert decoy != TRUTH[0]
        assert (decoy[0], decoy[-1]) == (FIRST, LAST)
        assert sum(a != b for a, b in zip(decoy, TRUTH[0], strict=True)) <= 2


TEXTS = ((1, 5, 6, 7, 8), (1, 5, 9, 6), (1, 7, 7, 5))


def fit(prefix, words):
    """0 where prefix and word open a text, else far off."""
    return np.array([1e-7 if any(t[: len(prefix) + 1] == (*prefix, w) for t in TEXTS) else 0.1 for w in words])


def growth(score=fit, seed=0):
    return Growth(score, (1,), 0.3, 16, 32, 40, np.random.default_rng(seed))


def test_prefixes_grow_to_every_text_and_stop():
    assert set(growth().sentences([1, 5, 6, 7, 8, 9])) == set(TEXTS)


def test_a_first_word_of_another_text_is_no_wrong_prefix():
    assert all(set(growth(seed=seed).sentences([5, 6, 7, 8, 9])) == set(TEXTS) for seed in range(30))


def test_a_word_that_opens_no_text_is_not_followed():
    def score(prefix, words):
        close = (0.002 if prefix == (1, 9) and word == 8 else 0.1 for word in words)
        return np.minimum(fit(prefix, words), np.array(list(close)))

    assert set(growth(score).sentences([5, 6, 7, 8, 9])) == set(TEXTS)


def test_noise_grows_no_text():
    rng = np.random.default_rng(2)
    assert growth(lambda _, words: 0.5 + 0.2 * rng.random(len(words))).sentences(range(2, 30)) == ()


def test_a_glass_measures_what_lies_outside_behind_its_factor():
    rng = np.random.default_rng(0)
    factor, inputs = rng.normal(size=(12, 20)), rng.normal(size=(5, 20)).astype(np.float32)
    basis = np.linalg.qr(rng.normal(size=(12, 4)))[0].T
    seen = inputs @ factor.T
    naive = np.linalg.norm(seen - seen @ basis.T @ basis, axis=1) / np.linalg.norm(seen, axis=1)
    glass = Glass(Space(basis, 12), factor)
    np.testing.assert_allclose(glass.residuals(inputs), naive, rtol=1e-5)
    np.testing.assert_allclose(distance([glass, glass], inputs), naive, rtol=1e-5)


def test_a_first_look_keeps_the_words_of_the_space():
    rng = np.random.default_rng(0)
    words = rng.normal(size=(500, 40))
    dictionary = make_rotary_dictionary(words, gain=np.ones(40), epsilon=1e-6)
    factor, said = rng.normal(size=(40, 40)), np.array([3, 77, 400])
    basis = np.linalg.qr((words[said] @ factor.T).T)[0].T
    kept = nearest_words(dictionary, Space(basis, 40), factor=factor, most=20)
    assert len(kept) == 20
    assert set(said) <= set(kept)


def test_a_rotary_dictionary_is_the_rms_norm_of_every_word():
    norm = torch.nn.RMSNorm(8, eps=1e-5)
    words = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 8))
        want = norm(words).double().numpy()
    gain = norm.weight.detach().double().numpy()
    made = make_rotary_dictionary(words.double().numpy(), gain=gain, epsilon=1e-5)
    assert not made.tells_places
    np.testing.assert_allclose(made.inputs(np.arange(6), np.zeros(6, np.int64)), want, rtol=1e-5)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=60, max_position_embeddings=32, **sizes)).eval()


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=32, n_embd=32, n_layer=2, n_head=2)).eval()


def as_model(backbone):
    """What the forward passes need of an adapted model."""
    backbone.get_base_model = lambda: backbone
    return SimpleNamespace(encoder=backbone)


@pytest.mark.parametrize(
    ("make", "module"), [(llama, "model.layers.0.self_attn.q_proj"), (gpt2, "transformer.h.0.attn.c_attn")]
)
def test_a_dictionary_is_what_layer_0_of_a_decoder_reads(make, module):
    model, text = as_model(make()), (4, 17, 33, 4)
    read = read_dictionary(model.encoder, positions=8)
    seen = layer_inputs(model, module, [text])[0]
    places = np.arange(len(text)) if read.tells_places else np.zeros(len(text), np.int64)
    np.testing.assert_allclose(read.inputs(np.array(text), places), seen, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "module"), [(llama, "model.layers.1.self_attn.q_proj"), (gpt2, "transformer.h.1.attn.c_attn")]
)
def test_branches_read_what_each_prefix_alone_reads(make, module):
    model, prefix, tokens = as_model(make()), (4, 17, 33), [5, 9, 17]
    alone = [layer_inputs(model, module, [(*prefix, token)])[0][-1] for token in tokens]
    np.testing.assert_allclose(branch_inputs(model, module, prefix, tokens), alone, atol=1e-4)


def test_padding_changes_no_input():
    model, module = as_model(llama()), "model.layers.1.self_attn.q_proj"
    together = layer_inputs(model, module, [(4, 17, 33, 5, 9), (4, 8)])
    np.testing.assert_allclose(together[1], layer_inputs(model, module, [(4, 8)])[0], atol=1e-5)
