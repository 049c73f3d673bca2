"""The parts of the span attack against naive loops and against simulated noise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlorabench.attacks._dictionary import make_dictionary, read_dictionary
from qlorabench.attacks._evidence import Law
from qlorabench.attacks._noise import codec_variances, privacy_variance, rounding_variances
from qlorabench.attacks._observed import first_modules
from qlorabench.attacks._places import _form, _predicted, pair_shares
from qlorabench.attacks._subspace import (
    log_chance,
    pair_residuals,
    row_space,
    unexplained,
    widened,
    word_residuals,
)
from qlorabench.codecs import BlockCodec
from qlorabench.federation import wire
from qlorabench.federation.facts import DefenseFacts
from qlorabench.federation.state import Layout, TensorSpec
from qlorabench.suite.schema import TrainingConfig
from qlorabench.threats.view import Update

from .dictionaries import made_up_dictionary

WORDS, PLACES, WIDTH = 7, 3, 10


def parts(seed):
    rng = np.random.default_rng(seed)
    words, places = rng.normal(size=(WORDS, WIDTH)), rng.normal(size=(PLACES, WIDTH))
    return words, places, rng.normal(size=WIDTH), rng.normal(size=WIDTH)


def dictionary_of(seed):
    words, places, gain, shift = parts(seed)
    return make_dictionary(words, places=places, gain=gain, shift=shift, epsilon=1e-5)


def layer_norm(seed):
    """Every input by a plain loop, (V, M, d)."""
    words, places, gain, shift = (torch.from_numpy(x) for x in parts(seed))
    rows = [[torch.layer_norm(w + p, (WIDTH,), gain, shift, 1e-5).numpy() for p in places] for w in words]
    return np.array(rows)


seeds = st.integers(0, 2**32)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_dictionary_is_the_layer_norm_of_every_pair(seed):
    dictionary, inputs = dictionary_of(seed), layer_norm(seed)
    pairs = np.indices((WORDS, PLACES)).reshape(2, -1)
    np.testing.assert_allclose(dictionary.inputs(*pairs).reshape(inputs.shape), inputs, atol=1e-9)
    np.testing.assert_allclose(dictionary.lengths, (inputs**2).sum(-1), atol=1e-8)


@given(seed=seeds, rank=st.integers(1, WIDTH))
@settings(max_examples=20, deadline=None)
def test_the_energy_of_a_pair_is_its_projection(seed, rank):
    basis = np.random.default_rng(seed).normal(size=(rank, WIDTH))
    naive = ((layer_norm(seed) @ basis.T) ** 2).sum(-1)
    np.testing.assert_allclose(dictionary_of(seed).energy(basis), naive, rtol=1e-7, atol=1e-8)
    behind = dictionary_of(seed).through(basis)
    np.testing.assert_allclose(behind.lengths, naive, rtol=1e-7, atol=1e-8)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_decoy_is_the_dictionary_of_permuted_words(seed):
    rng = np.random.default_rng(seed)
    dictionary, basis = dictionary_of(seed), rng.normal(size=(4, WIDTH))
    order = rng.permutation(WIDTH)
    decoy, words = dictionary.decoy(order), dictionary.words[:, np.argsort(order)]
    np.testing.assert_allclose(decoy.word_energy(basis), ((words @ basis.T) ** 2).sum(1))
    pairs = np.indices((WORDS, PLACES)).reshape(2, -1)
    inputs = decoy.inputs(*pairs)
    np.testing.assert_allclose(decoy.lengths.ravel(), (inputs**2).sum(1))
    np.testing.assert_allclose(decoy.energy(basis).ravel(), ((inputs @ basis.T) ** 2).sum(1), rtol=1e-7)
    np.testing.assert_allclose(decoy.through(basis).lengths, decoy.energy(basis), rtol=1e-7)


def test_positions_start_behind_the_padding_index_of_roberta():
    table = torch.nn.Embedding(9, 4, padding_idx=1)
    layer = SimpleNamespace(
        word_embeddings=torch.nn.Embedding(5, 4), position_embeddings=table, LayerNorm=torch.nn.LayerNorm(4)
    )
    read = read_dictionary(SimpleNamespace(embeddings=layer), positions=3)
    places = table.weight.detach().double().numpy()[2:5]
    np.testing.assert_allclose(read.places, places - places.mean(1, keepdims=True))
    assert read_dictionary(SimpleNamespace(), positions=3) is None


@pytest.mark.parametrize("shape", [(24, 64), (300, 64), (64, 8)])
def test_pure_noise_has_no_direction_and_a_plane_has_two(shape):
    rng = np.random.default_rng(0)
    noise, plane = rng.normal(size=shape), np.linalg.qr(rng.normal(size=(shape[1], 2)))[0].T
    assert row_space(noise).rank == 0
    space = row_space(noise + 1e4 * rng.normal(size=(shape[0], 2)) @ plane)
    assert space.rank == 2
    assert unexplained(space, plane) < 1e-2
    assert widened(space, plane[:1] * 3 + rng.normal(size=(1, shape[1]))).rank == 3


def test_residuals_are_zero_inside_and_follow_the_beta_law_outside():
    rng = np.random.default_rng(1)
    dictionary = make_dictionary(
        rng.normal(size=(3000, 40)), places=np.zeros((1, 40)), gain=np.ones(40), shift=np.zeros(40), epsilon=0.0
    )
    space = row_space(1e6 * np.vstack([dictionary.inputs(np.arange(3), np.zeros(3, int)), rng.normal(size=(5, 40))]))
    assert word_residuals(dictionary, space)[:3].max() < 1e-6
    residuals = pair_residuals(dictionary, space)[3:]
    uniform = np.exp(log_chance(residuals, space))  # a probability of itself is uniform
    assert abs(uniform.mean() - 0.5) < 0.05
    assert uniform.min() > 1e-6


def test_room_leaves_a_wrong_word_no_chance():
    law = Law(share=0.3, false_alarm=1e-6)
    assert 0.3**law.room <= 1e-6 < 0.3 ** (law.room - 1)


def test_moments_of_marginals_are_those_of_independent_pairs():
    rng = np.random.default_rng(2)
    powers, spread = rng.random((4, 3)), 1 + rng.random((4, 3))
    columns = np.zeros((8, 4, 3))
    for word, place in np.ndindex(4, 3):
        columns[word, word, place] = columns[4 + place, word, place] = 1
        columns[7, word, place] = spread[word, place]
    flat = columns.reshape(8, -1)
    np.testing.assert_allclose(_predicted(powers, spread), (flat * powers.ravel()) @ flat.T)
    matrix = flat @ flat.T
    np.testing.assert_allclose(_form(matrix, spread).ravel(), np.einsum("mi,mn,ni->i", flat, matrix, flat))


def heard(rng, *, factor=None):
    """Return a dictionary, the pairs of three texts with words in common, and rows that their inputs combine to."""
    dictionary = made_up_dictionary(200, 8, 90)
    texts = [(2, *rng.choice(np.arange(10, 30), 6, replace=False), 3) for _ in range(3)]
    said = sorted({(int(token), place) for text in texts for place, token in enumerate(text)})
    inputs = dictionary.inputs(*np.array(said).T)
    seen = inputs if factor is None else inputs @ factor.T
    return dictionary, frozenset(said), 1e6 * rng.normal(size=(200, len(said))) @ seen


@pytest.mark.parametrize("behind", [False, True])
def test_pairs_that_were_said_carry_the_power_of_their_words(behind):
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(90, 90)) if behind else None
    dictionary, said, rows = heard(rng, factor=factor)
    every = frozenset((token, place) for token, _ in said for place in range(8))
    shares = pair_shares(dictionary, [(factor, rows)], pairs=every, first=2, iterations=100)
    ranked = sorted(every, key=lambda pair: -shares[pair])
    assert len(said & set(ranked[: len(said)])) >= len(said) - 1
    for token in {token for token, _ in said}:
        assert sum(share for (word, _), share in shares.items() if word == token) == pytest.approx(1)


def test_a_factor_narrower_than_words_and_places_tells_no_shares():
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(16, 90))
    dictionary, said, rows = heard(rng, factor=factor)
    assert pair_shares(dictionary, [(factor, rows)], pairs=said, first=2, iterations=10) == {}


def facts_of(*defenses, **training):
    layout = Layout((TensorSpec("m.A", (16, 96), "A"), TensorSpec("m.B", (96, 16), "B")))
    config = TrainingConfig.model_validate(training)
    return SimpleNamespace(
        defense=lambda name: next((d for d in defenses if d.name == name), None),
        travelling=layout,
        full=layout,
        client_rows=(40,),
        training=config,
    )


@pytest.mark.parametrize(("codebook", "bits"), [("uniform-int", 8), ("normal-float", 4), ("uniform-int", 3)])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_variance_of_a_quantized_upload_is_that_of_its_errors(codebook, bits, rounding):
    fields = {"codebook": codebook, "bits": bits, "block_size": 32, "rounding": rounding, "double_quantization": False}
    facts, codec = facts_of(DefenseFacts("quantized-upload", fields)), BlockCodec(**fields)
    values = [torch.randn(s.count, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(facts.full)]
    payload = codec.encode(values, rng=np.random.default_rng(0))
    decoded = codec.decode(payload, lengths=facts.travelling.lengths)
    said = codec_variances(Update(0, 0, wire.to_bytes(payload), {}), facts)
    for spec, value, got in zip(facts.full, values, decoded, strict=True):
        error = float(((value - got).double() ** 2).mean())
        assert said[spec.name].shape == (spec.shape[0],)
        assert error == pytest.approx(float(said[spec.name].mean()), rel=0.25)
    assert codec_variances(Update(0, 0, b"", {}), facts_of()) == {}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_variance_of_private_noise_is_that_of_the_optimizer(momentum):
    guarantee = {"noise_multiplier": 1.5, "sample_rate": 0.1, "steps": 15}
    defense = DefenseFacts("dp-sgd", {"clip_norm": 2.0}, {"clients": [guarantee]})
    optimizer = {"lr": 0.4, "momentum": momentum, "schedule": "linear"}
    facts = facts_of(defense, rounds=4, local_steps=5, optimizer=optimizer)
    said = privacy_variance(facts, client=0, round=2)
    weight = torch.nn.Parameter(torch.zeros(200_000))
    sgd = torch.optim.SGD([weight], lr=0.4 * 0.5, momentum=momentum)
    noise = torch.Generator().manual_seed(0)
    for _ in range(5):
        weight.grad = 1.5 * 2.0 / 4 * torch.randn(weight.shape, generator=noise)
        sgd.step()
    assert float(weight.detach().var()) == pytest.approx(said, rel=0.02)
    assert privacy_variance(facts_of(), client=0, round=0) == 0.0


def test_the_variance_of_rounding_is_that_of_float32():
    rng = np.random.default_rng(3)
    held = torch.from_numpy(rng.uniform(0.5, 1, (4, 5000))).float()
    steps = [torch.from_numpy(rng.normal(0, 1e-4, held.shape)) for _ in range(4)]
    moved, exact = held.clone(), held.double()
    for step in steps:
        moved, exact = (moved.double() + step).float(), exact + step
    error = float(((moved.double() - exact) ** 2).mean())
    said = rounding_variances(held, moved - held, steps=4)
    assert error == pytest.approx(float(said.mean()), rel=0.2)


def test_only_projections_of_the_first_layer_read_the_embeddings():
    names = [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.10.attention.self.query",
        "layers.0.self_attn.v_proj",
    ]
    facts = SimpleNamespace(full=Layout(tuple(TensorSpec(f"{n}.A", (2, 8), "A") for n in names)))
    assert first_modules(facts, width=8) == [names[0], names[3]]
    assert first_modules(facts, width=9) == []
