"""A-stacking against clients that answer here, on a tiny random encoder."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qlorabench.attacks._stacks import Shot, difference, stack
from qlorabench.attacks._subspace import row_space
from qlorabench.attacks.a_stacking import AStacking, AStackingConfig
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.model import AdapterModel, initial_state
from qlorabench.federation.protocol import Protocol
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.schema import HeadConfig, LoraConfig, TrainingConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.crafting import CraftedRun
from qlorabench.threats.lab import Lab
from qlorabench.threats.view import Exchange, Update, View

from .test_span import TOKENIZER, backbone, texts_of

RANK, WORDS = 4, (100, 200, 300, 201, 7, 8, 400, 401, 77, 78)
SENTENCE = " ".join(f"w{word}" for word in WORDS)
LONG = texts_of(WORDS)  # twelve tokens: three times the rank
SHORT = texts_of((55,))  # three tokens
MIXED = texts_of(WORDS, (11, 12, 13, 14, 15, 16, 17, 18), (500, 501), (99,), (98,), (97,), (96,), (95,))
COMMITTED = ("committed-start", {})


def seat(*clients, defenses=(), rounds=8, **training):
    """Return the view of a malicious server over ``clients`` (`Encoded`), and its run."""
    model = AdapterModel(backbone(), LoraConfig(rank=RANK, alpha=2.0 * RANK), classes=2, width=64).eval()
    built = [(cls := registry("defenses").load(name))(cls.Config(**config)) for name, config in defenses]
    roles = [role for role in ("A", "B", "head") if all(defense.trains(role) for defense in built)]
    facts = PublicFacts(
        backbone="tiny",
        lora=LoraConfig(rank=RANK, alpha=2.0 * RANK),
        head=HeadConfig(train="shared"),
        training=TrainingConfig.model_validate(
            {"rounds": rounds, "local_steps": 1, "optimizer": {"lr": 0.1}} | training
        ),
        client_rows=tuple(len(data) for data in clients),
        max_length=14,
        label_names=("no", "yes"),
        defenses=tuple(DefenseFacts(d.name, d.config.model_dump(mode="json")) for d in built),
        full=model.layout,
        travelling=model.layout.only(*roles),
    )
    start = initial_state(model, head=facts.head, seed=Seed(1, ("start",)))
    rows = [np.arange(len(data)) for data in clients]
    task = SimpleNamespace(client=clients.__getitem__, client_rows=rows)
    run = CraftedRun(model, Protocol(facts, built), task, start, Seed(1, ("crafted",)))
    facets = {Capability.CHOSEN_BROADCASTS: run.open()}
    return View("malicious-server", 0, facts, Lab(model, TOKENIZER, start), facets), run


def attack(view, seed=0, **config):
    return AStacking(AStackingConfig(**config)).run(view, np.random.default_rng(seed)).clients


def test_four_factors_spell_a_sentence_of_three_times_the_rank():
    view, run = seat(LONG, SHORT)
    long, short = attack(view, stacks=4)
    assert long.tokens == set(WORDS)
    assert long.placed == {(i, word) for i, word in enumerate(WORDS, start=1)}
    assert (long.texts, short.texts) == ((SENTENCE,), ("w55",))
    assert run.requests == 2 * 5


@pytest.mark.parametrize("stacks", [1, 2, 3])
def test_fewer_factors_than_tokens_need_show_nothing(stacks):
    (said,) = attack(seat(LONG)[0], stacks=stacks)
    assert not said.tokens
    assert f"tokens >= rank {RANK * stacks}" in said.note


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_small_gain_keeps_many_local_steps_alike(momentum):
    training = {"local_steps": 6, "optimizer": {"lr": 0.1, "momentum": momentum}}
    (small,), (large,) = (attack(seat(LONG, **training)[0], gain=gain) for gain in (1e-3, 1.0))
    assert small.texts == (SENTENCE,)
    assert not large.tokens


@pytest.mark.parametrize("codec", [{"bits": 4}, {"bits": 2, "rounding": "stochastic", "double_quantization": True}])
def test_a_coarse_broadcast_does_not_help(codec):
    (said,) = attack(seat(LONG, defenses=[("quantized-broadcast", codec)])[0])
    assert said.texts == (SENTENCE,)


def test_a_learning_rate_that_falls_does_not_help():
    (said,) = attack(seat(LONG, optimizer={"lr": 0.1, "schedule": "cosine"})[0])
    assert said.texts == (SENTENCE,)


def test_clients_that_check_the_start_say_nothing():
    view, run = seat(LONG, SHORT, defenses=[COMMITTED])
    for said in attack(view):
        assert not said.tokens | said.placed
        assert said.note == "the client refused broadcast 0"
    assert run.requests == 2


def test_a_patient_server_passes_that_check():
    (said,) = attack(seat(LONG, defenses=[COMMITTED])[0], drift=0.5)
    assert said.texts == (SENTENCE,)


def test_a_batch_that_changes_is_noticed_and_each_answer_read_alone():
    view, run = seat(MIXED, batch_size=1)
    (said,) = attack(view)
    assert "the batch changes" in said.note
    short = {500, 501, 99, 98, 97, 96, 95}
    assert said.tokens <= short
    assert len(run.drawn[0]) > 1


def test_the_rounds_of_the_federation_limit_the_factors():
    view, run = seat(LONG, SHORT, rounds=3)
    long, short = attack(view, stacks=4)
    assert (long.tokens, short.texts) == (frozenset(), ("w55",))
    assert "tokens >= rank 8" in long.note
    assert run.requests == 2 * 3


def test_a_federation_of_one_round_gives_one_answer():
    (said,) = attack(seat(SHORT, rounds=1)[0])
    assert said.texts == ("w55",)


class Deaf:
    """Clients that answer noise, of full rank or of few directions."""

    rounds = 8

    def __init__(self, view, seed, thin):
        self._send, self._rng, self._thin = view.crafted.send, torch.Generator().manual_seed(seed), thin

    def send(self, state, *, client):
        got = self._send(state, client=client)
        return Exchange(got.broadcast, Update(0, client, b"", {n: self._noise(v) for n, v in state.items()}))

    def _noise(self, like):
        rows, columns = (*like.shape, 1)[:2]
        left = torch.randn(rows, self._thin, generator=self._rng)
        return (1e-3 * left @ torch.randn(self._thin, columns, generator=self._rng)).reshape(like.shape)


@pytest.mark.parametrize("seed", range(6))
def test_answers_of_noise_give_no_claim(seed):
    view, _ = seat(LONG)
    deaf = {Capability.CHOSEN_BROADCASTS: Deaf(view, seed, thin=1 + seed)}
    (said,) = attack(View("malicious-server", 0, view.facts, view.lab, deaf), seed)
    assert not said.tokens | said.placed


def test_private_noise_is_known_for_noise():
    view, _ = seat(LONG)
    guarantee = {"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": 8}
    private = DefenseFacts("dp-sgd", {"clip_norm": 1.0}, {"clients": [guarantee]})
    facts = PublicFacts(**{**vars(view.facts), "defenses": (private,)})
    (said,) = attack(View("malicious-server", 0, facts, view.lab, view._facets))
    assert not said.tokens
    assert "nothing above the noise" in said.note


def test_what_leaves_no_signal_is_told_before_anything_is_trained():
    facts = seat(LONG)[0].facts
    blind = AStacking(AStackingConfig()).blind
    adam = TrainingConfig.model_validate({"optimizer": {"kind": "adamw"}})
    assert blind(facts) is None
    assert "A does not travel" in blind(PublicFacts(**{**vars(facts), "defenses": (DefenseFacts("frozen-a", {}),)}))
    assert "AdamW" in blind(PublicFacts(**{**vars(facts), "training": adam}))


def test_without_a_factor_that_travels_nothing_is_asked():
    view, run = seat(LONG, defenses=[("frozen-a", {})])
    assert attack(view) == ()
    assert run.requests == 0


def shot(seed, tokens=3, noise=1.0, rank=RANK):
    """Return X of one batch, (tokens, 64), and its answer to a factor of its own."""
    rng = np.random.default_rng(0)
    inputs, gradients = rng.normal(size=(tokens, 64)), rng.normal(size=(40, tokens))
    factor = np.random.default_rng(seed).normal(size=(rank, 64))
    return inputs, Shot(factor, gradients @ inputs @ factor.T, np.full(40, noise**2))


def test_a_stack_is_the_answer_to_the_stacked_factor():
    inputs, first = shot(1)
    _, second = shot(2, noise=3.0)
    both = stack([first, second])
    space = row_space(1e6 * both.change / np.sqrt(both.variances)[:, None])
    assert space.rank == 3
    seen = inputs @ both.factor.T
    np.testing.assert_allclose(seen @ space.basis.T @ space.basis, seen, atol=1e-9 * np.abs(seen).max())
    np.testing.assert_allclose(both.variances, 1)


def test_answers_differ_in_units_of_their_noise():
    _, first = shot(1)
    noise = np.random.default_rng(5).normal(size=(2, *first.change.shape))
    left, right = (Shot(first.factor, first.change + e, first.variances) for e in noise)
    assert difference(left, right) == pytest.approx(1, rel=0.1)
    slow = Shot(0.5 * first.factor, 0.5 * left.change, 0.25 * first.variances)  # the same at half the rate
    assert difference(left, slow) == pytest.approx(0, abs=1e-9)
    assert difference(left, shot(2)[1]) == float("inf")
