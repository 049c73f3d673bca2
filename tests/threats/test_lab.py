import numpy as np
import pytest
import torch

from qlorabench.federation.bench import describe
from qlorabench.tasks.encoding import collate
from qlorabench.threats.lab import Lab

from ..federation.systems import random_state, system


@pytest.fixture
def lab(bench):
    spec = system()
    _, start = describe(bench, spec)
    return Lab(bench.model(spec), bench.backbone.tokenizer, start)


@pytest.fixture
def state(lab):
    return random_state(lab.model.layout)


def test_logits_are_those_of_each_text_alone(lab, state, bench):
    data = bench.tasks[0].client(1)
    found = lab.logits(state, data)
    model = lab.mount(state)
    with torch.no_grad():
        alone = [model(*collate(data, np.array([i])))[0].numpy() for i in range(len(data))]
    np.testing.assert_allclose(found, np.array(alone), rtol=1e-4, atol=1e-5)


def test_losses_are_in_nats_and_positive(lab, state, bench):
    data = bench.tasks[0].client(1)
    logits = lab.logits(state, data)
    naive = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(data)), data.labels]
    np.testing.assert_allclose(lab.losses(state, data), naive, rtol=1e-6)


def test_what_is_not_mounted_stays_at_its_public_start(lab, state):
    name = "head.bias"
    lab.mount(state)
    lab.mount({name: state[name]})
    found = lab.model.state()
    assert torch.equal(found[name], state[name])
    assert all(torch.equal(found[n], value) for n, value in lab.start.items() if n != name)


def test_the_bare_adapter_is_the_backbone(lab, bench):
    data = bench.tasks[0].client(0)
    other = {n: v for n, v in random_state(lab.model.layout).items() if n.endswith(".A")}
    np.testing.assert_array_equal(lab.logits(lab.bare, data), lab.logits({**lab.bare, **other}, data))


def test_nothing_is_computed_twice(lab, state, bench):
    data = bench.tasks[0].client(0)
    first = lab.logits(state, data)
    kept = len(lab.memo)
    assert np.array_equal(lab.logits(dict(reversed(state.items())), data), first)
    assert len(lab.memo) == kept
    lab.logits({**state, "head.bias": state["head.bias"] + 1}, data)
    assert len(lab.memo) == kept + 1
