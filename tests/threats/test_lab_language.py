import numpy as np
import pytest
import torch

from qlorabench.federation.bench import describe
from qlorabench.tasks.encoding import collate
from qlorabench.threats.lab import Lab

from ..federation.language import language_bench, language_system
from ..federation.systems import random_state


@pytest.fixture
def lab():
    bench, spec = language_bench(), language_system()
    return Lab(bench.model(spec), bench.backbone.tokenizer, describe(bench, spec)[1])


@pytest.fixture
def data():
    return language_bench().tasks[0].client(1)


def test_token_losses_are_those_of_each_text_alone(lab, data):
    state = random_state(lab.model.layout)
    found = lab.token_losses(state, data)
    model = lab.mount(state)
    assert len(found) == len(data)
    for row, losses in enumerate(found):
        ids, mask = collate(data, np.array([row]))
        with torch.no_grad():
            chances = torch.log_softmax(model(ids, mask)[0], dim=1)
        naive = [-float(chances[i, ids[0, i + 1]]) for i in range(len(data.ids[row]) - 1)]
        np.testing.assert_allclose(losses, naive, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(lab.losses(state, data), [losses.mean() for losses in found])


def test_nothing_is_computed_twice(lab, data, monkeypatch):
    first = lab.losses(lab.bare, data)
    monkeypatch.setattr(lab.model, "forward", None)
    np.testing.assert_array_equal(lab.losses(lab.bare, data), first)


def test_an_adapter_changes_the_losses_and_no_adapter_does_not(lab, data):
    other = {n: v for n, v in random_state(lab.model.layout).items() if n.endswith(".A")}
    np.testing.assert_array_equal(lab.losses({**lab.bare, **other}, data), lab.losses(lab.bare, data))
    assert np.abs(lab.losses(random_state(lab.model.layout), data) - lab.losses(lab.bare, data)).min() > 0


def test_logits_are_not_kept(lab, data):
    with pytest.raises(TypeError, match="mount"):
        lab.logits(lab.bare, data)
