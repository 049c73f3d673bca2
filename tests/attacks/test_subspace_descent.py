"""Subspace descent on small federations, and its panes against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._panes import Pane
from qlorabench.attacks.subspace_descent import SubspaceDescent, SubspaceDescentConfig
from qlorabench.defenses.frozen_a import FrozenA, FrozenAConfig
from qlorabench.defenses.quantized_upload import QuantizedUpload, QuantizedUploadConfig
from qlorabench.suite.schema import TrainingConfig

from .test_span import federate, replaced, texts_of

WORDS = [100, 200, 300, 201]
EIGHT = QuantizedUpload(QuantizedUploadConfig(bits=8, block_size=32))


def attack(view, **config):
    return SubspaceDescent(SubspaceDescentConfig(**config)).run(view, np.random.default_rng(0)).clients


def test_a_pane_measures_both_ways():
    pane = Pane("m", None, torch.eye(4)[:2], torch.tensor([1.0, 0.5]))
    inside, outside, half = (torch.tensor([[row]]) for row in ([3.0, 0, 0, 0], [0, 0, 2.0, 0], [0, 1.0, 0, 0]))
    assert [float(pane.missed(x)) for x in (inside, outside, half)] == pytest.approx([0, 1, 0.5])
    assert [float(pane.uncovered(x)) for x in (inside, outside, half)] == pytest.approx([1 / 3, 1, 2 / 3], abs=1e-3)
    both = torch.cat([inside, half], dim=1)
    assert float(pane.uncovered(both)) == pytest.approx(0, abs=1e-3)
    assert float(replace(pane, factor=torch.eye(4)[[2, 3, 0, 1]]).missed(outside)) == pytest.approx(0)


@pytest.mark.parametrize("defenses", [(), (FrozenA(FrozenAConfig()),), (EIGHT,)])
def test_a_sentence_shorter_than_the_rank_is_read(defenses):
    view = federate(texts_of(WORDS), defenses=list(defenses), rank=16, rounds=1, local_steps=1)
    (said,) = attack(view, steps=150, rounds=20)
    assert len(said.tokens & set(WORDS)) >= 3, said
    assert len(said.tokens) <= 5
    assert attack(view, steps=5, rounds=2) == attack(view, steps=5, rounds=2)


def test_as_many_tokens_as_rank_are_said_to_hide():
    (said,) = attack(federate(texts_of(range(100, 108)), defenses=[FrozenA(FrozenAConfig())], rank=8, rounds=1))
    assert not said.tokens
    assert "tokens >= rank" in said.note


def test_noise_gives_no_claim():
    view = federate(texts_of(WORDS), rank=16, rounds=1)
    noise = torch.Generator().manual_seed(0)
    (said,) = attack(replaced(view, lambda _, x: torch.randn(x.shape, generator=noise)))
    assert not said.tokens


def test_adamw_is_blind_at_plan_time():
    view = federate(texts_of(WORDS), rounds=1)
    adam = TrainingConfig.model_validate({"optimizer": {"kind": "adamw", "lr": 1e-3}})
    blind = SubspaceDescent(SubspaceDescentConfig()).blind
    assert blind(view.facts) is None
    assert "AdamW" in blind(replace(view.facts, training=adam))
