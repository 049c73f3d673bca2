"""Subspace descent on small federations, and its panes against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks._dictionary import read_dictionary
from qlorabench.attacks._drafts import Reader
from qlorabench.attacks._gradients import example_gradients
from qlorabench.attacks._observed import KEYS
from qlorabench.attacks._panes import Aligned, Pane, make_alignment
from qlorabench.attacks._relaxed import make_body
from qlorabench.attacks.subspace_descent import SubspaceDescent, SubspaceDescentConfig
from qlorabench.defenses.frozen_a import FrozenA, FrozenAConfig
from qlorabench.defenses.quantized_upload import QuantizedUpload, QuantizedUploadConfig
from qlorabench.suite.schema import TrainingConfig

from .test_span import federate, replaced, texts_of

MODULE = "encoder.layer.0.attention.self.query"
WORDS = [100, 200, 300, 201]
TWO = [[100, 200, 300], [17, 330, 450]]
EIGHT = QuantizedUpload(QuantizedUploadConfig(bits=8, block_size=32))


def attack(view, **config):
    return SubspaceDescent(SubspaceDescentConfig(prior=None, **config)).run(view, np.random.default_rng(0)).clients


def test_a_pane_measures_both_ways():
    pane = Pane("m", None, torch.eye(4)[:2], torch.tensor([1.0, 0.5]))
    inside, outside, half = (torch.tensor([[row]]) for row in ([3.0, 0, 0, 0], [0, 0, 2.0, 0], [0, 1.0, 0, 0]))
    one = torch.ones(1, 1)
    assert [float(pane.missed(x, one)) for x in (inside, outside, half)] == pytest.approx([0, 1, 0.5])
    uncovered = [float(pane.uncovered(x, one)) for x in (inside, outside, half)]
    assert uncovered == pytest.approx([1 / 3, 1, 2 / 3], abs=1e-3)
    both = torch.cat([inside, half], dim=1)
    assert float(pane.uncovered(both, torch.ones(1, 2))) == pytest.approx(0, abs=1e-3)
    assert float(pane.uncovered(both, torch.tensor([[1, 0]]))) == pytest.approx(1 / 3, abs=1e-3)
    assert float(pane.missed(both, torch.tensor([[1, 0]]))) == pytest.approx(0)
    assert float(replace(pane, factor=torch.eye(4)[[2, 3, 0, 1]]).missed(outside, one)) == pytest.approx(0)


@pytest.mark.parametrize("defenses", [(), (FrozenA(FrozenAConfig()),), (EIGHT,)])
def test_a_sentence_shorter_than_the_rank_is_read(defenses):
    view = federate(texts_of(WORDS), defenses=list(defenses), rank=16, rounds=1, local_steps=1)
    (said,) = attack(view, steps=150)
    assert [[token for _, token in sorted(said.placed)]] == [WORDS], said
    assert attack(view, steps=5, rounds=1) == attack(view, steps=5, rounds=1)


def alignment(view):
    dictionary = read_dictionary(view.lab.model.encoder.get_base_model(), positions=8)
    reader = Reader(view, make_body(view.lab, dictionary, first_module=MODULE))
    (shown,) = reader.shown(0)
    return make_alignment(reader.mounted(0), shown, layers=3, keys=KEYS)


def two_texts(rank):
    """The update of one step on a batch of two texts, behind frozen A."""
    schedule = {"rounds": 1, "local_steps": 1, "batch_size": 2}
    view = federate(texts_of(*TWO * 4), defenses=[FrozenA(FrozenAConfig())], rank=rank, **schedule)
    view.lab.mount({**view.lab.start, **view.broadcasts[0].state})
    both = example_gradients(view.lab.model, texts_of(*TWO), np.arange(2), view.updates[0].state.keys())
    return replaced(view, lambda name, _: -0.5 * both[name].mean(0))


def test_one_text_beside_others_scores_as_all_of_them_do_together():
    objective = alignment(two_texts(32))
    fit = Aligned(objective, [list(text) for text in TWO])
    others = [[100, 200, 300], [100, 300, 200], [5, 6, 7], [5, 6], [5, 6, 7, 8]]
    shares = fit.place(0).shares(others)
    for share, other in zip(shares[:3], others[:3], strict=True):
        whole = objective.distance(objective.body.embed(torch.tensor([[other, fit.texts[1]]])), progress=0.0)
        assert float(share) == pytest.approx(1 - float(whole), abs=1e-5)
    assert float(shares[0]) == pytest.approx(fit.share) == pytest.approx(1, abs=1e-3)
    assert int(shares.argmax()) == 0
    fit.put(1, [17, 330])
    assert fit.texts[1] == [17, 330]
    assert fit.share < 0.99


def test_two_texts_of_one_step_are_read():
    (said,) = attack(two_texts(32), steps=150)
    assert len(said.tokens & {100, 200, 300, 17, 330, 450}) >= 5, said


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
