"""The words that a released adapter spans, where theory says that it does and where it says that it cannot."""

import numpy as np
import pytest
import torch

from qlorabench.attacks.adapter_inversion import AdapterInversion, AdapterInversionConfig
from qlorabench.defenses.frozen_a import FrozenA, FrozenAConfig
from qlorabench.defenses.quantized_broadcast import QuantizedBroadcast, QuantizedBroadcastConfig
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.suite.schema import TrainingConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import View

from .test_span import federate, texts_of

FROZEN = FrozenA(FrozenAConfig())
TEXTS = (texts_of([100, 200, 300, 201]), texts_of([400, 77, 500]))
SAID = {(1, 100), (2, 200), (3, 300), (4, 201), (1, 400), (2, 77), (3, 500)}


def released(view, change=lambda _, x: x):
    """Return the end user's view of the last broadcast of ``view``, its tensors put through ``change``."""
    state = {name: change(name, value) for name, value in view.broadcasts[-1].state.items()}
    return View("end-user", 0, view.facts, view.lab, {Capability.RELEASED_ADAPTER: state})


def run(view, seed=0, **config):
    return AdapterInversion(AdapterInversionConfig(**config)).run(view, np.random.default_rng(seed))


@pytest.mark.parametrize("defenses", [(), (FROZEN,)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_every_word_in_its_place_follows_from_the_adapter_alone(defenses, momentum):
    claim = run(released(federate(*TEXTS, defenses=defenses, rank=32, rounds=5, momentum=momentum)))
    assert [said.client for said in claim.clients] == [0, 1]  # nobody knows whose word it was
    for said in claim.clients:
        assert said.tokens == {word for _, word in SAID}, said.note
        assert said.placed >= SAID
        assert len(said.placed) <= 1.3 * len(SAID)  # a neighbouring place may look as close


def test_as_many_inputs_as_the_rank_hide():
    said = run(released(federate(*TEXTS, defenses=[FROZEN], rank=8, rounds=5))).clients[0]
    assert not said.tokens
    assert "tokens >= rank 8" in said.note


def test_an_adapter_that_was_trained_on_other_texts_does_not_hold_these():
    other = (texts_of([101, 202, 301]), texts_of([401, 78]))
    said = run(released(federate(*other, defenses=[FROZEN], rank=32, rounds=5))).clients[0]
    assert said.tokens == {101, 202, 301, 401, 78}


def test_coarse_broadcasts_cost_words_and_no_precision():
    for bits in (8, 4, 2):
        codec = QuantizedBroadcast(QuantizedBroadcastConfig(bits=bits, block_size=32))
        said = run(released(federate(*TEXTS, defenses=[FROZEN, codec], rank=32, rounds=5))).clients[0]
        assert said.tokens <= {word for _, word in SAID}
        assert said.tokens or bits < 8


def test_noise_in_place_of_b_gives_no_claim():
    view = federate(*TEXTS, defenses=[FROZEN], rank=32, rounds=2)
    for seed in range(20):
        noise, thin = torch.Generator().manual_seed(seed), 1 + seed % 31  # of a rank that looks like tokens

        def draw(_, x, thin=thin, noise=noise):
            return 1e-3 * torch.randn(len(x), thin, generator=noise) @ torch.randn(thin, x.shape[1], generator=noise)

        assert all(not said.tokens for said in run(released(view, draw), seed).clients)


def test_private_noise_is_known_for_noise():
    view = federate(*TEXTS, defenses=[FROZEN], rank=32, rounds=4)
    guarantee = {"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": 16}
    private = DefenseFacts("dp-sgd", {"clip_norm": 1.0}, {"clients": [guarantee] * 2})
    facts = PublicFacts(**{**vars(view.facts), "defenses": (private,)})
    sigma = 0.5 * 2.0 * (4 * 4 / 2) ** 0.5  # lr z C, four steps in four rounds, mean of two clients
    noise = torch.Generator().manual_seed(0)
    noisy = released(view, lambda _, x: x + sigma * torch.randn(x.shape, generator=noise))
    for said in run(View("end-user", 0, facts, view.lab, noisy._facets)).clients:
        assert not said.tokens
        assert "nothing above the noise" in said.note


def test_an_adapter_that_never_moved_and_one_that_broke_give_nothing():
    view = federate(*TEXTS, defenses=[FROZEN], rank=32, rounds=2)
    for value in (0.0, np.nan):
        said = run(released(view, lambda _, x: torch.full_like(x, value))).clients[0]  # noqa: B023
        assert not said.tokens
        assert said.note


def test_adamw_is_blind_at_plan_time():
    view = federate(*TEXTS, rank=8, rounds=1)
    adam = TrainingConfig.model_validate({"optimizer": {"kind": "adamw", "lr": 1e-3}})
    attack = AdapterInversion(AdapterInversionConfig())
    assert "AdamW" in attack.blind(PublicFacts(**{**vars(view.facts), "training": adam}))
    assert attack.blind(view.facts) is None
