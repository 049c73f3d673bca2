import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.federation.local import plain_training
from qlorabench.federation.losses import example_losses, next_token_losses
from qlorabench.federation.model import AdapterModel
from qlorabench.tasks.encoding import collate

from .language import language_bench, language_system
from .systems import random_state


def naive_losses(logits, ids, length):
    """Return the losses of one text's tokens after the first, by hand."""
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return [-np.log(chances[place, ids[place + 1]]) for place in range(length - 1)]


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_text_costs_the_mean_over_its_predicted_tokens(lengths, seed):
    rng, longest = np.random.default_rng(seed), max(lengths)
    logits = rng.normal(size=(len(lengths), longest, 5))
    ids = rng.integers(0, 5, (len(lengths), longest))
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(int)
    arguments = [torch.from_numpy(a) for a in (logits, ids, mask)]
    found = example_losses("language-modeling", *arguments, np.zeros(len(lengths), int)).numpy()
    each = next_token_losses(*arguments).numpy()
    for i, length in enumerate(lengths):
        naive = naive_losses(logits[i], ids[i], length)
        np.testing.assert_allclose(each[i, : length - 1], naive, rtol=1e-6)
        assert not each[i, length - 1 :].any()
        assert found[i] == pytest.approx(np.mean(naive) if naive else 0.0)


def test_a_classifiers_loss_is_the_cross_entropy_of_the_label():
    logits, labels = torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)]], dtype=torch.float64), np.array([0, 1])
    found = example_losses("classification", logits, torch.empty(0), torch.empty(0), labels)
    torch.testing.assert_close(found, torch.log(torch.tensor([2.0, 4.0 / 3.0], dtype=torch.float64)))


@pytest.fixture
def mounted():
    """Return the toy language model under a random adapter, its parameters, and a client's texts."""
    bench, spec = language_bench(), language_system()
    model = bench.model(spec)
    model.load(random_state(model.layout))
    parameters = [p for _, p in model.train_only(model.layout)]
    yield model, parameters, bench.tasks[0].client(1)
    for p in parameters:
        p.grad = None


def test_a_language_model_has_no_head_and_adapts_what_it_is_told(mounted):
    model: AdapterModel = mounted[0]
    assert (model.objective, model.head) == ("language-modeling", None)
    assert {spec.role for spec in model.layout} == {"A", "B"}
    assert {name.rpartition(".")[2] for name in model.layout.modules()} == {"q_proj", "k_proj", "v_proj"}
    assert set(model.frozen_weights()) == set(model.layout.modules())


def test_padding_changes_no_loss(mounted):
    model, _, data = mounted
    rows = np.argsort(data.lengths)[[0, -1]]
    assert data.lengths[rows[0]] < data.lengths[rows[1]]
    with torch.no_grad():
        ids, mask = collate(data, rows)
        together = example_losses("language-modeling", model(ids, mask), ids, mask, data.labels[rows])
        alone = []
        for row in rows:
            ids, mask = collate(data, np.array([row]))
            alone.append(example_losses("language-modeling", model(ids, mask), ids, mask, data.labels[[row]]))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


class Fixed:
    """A sampler that draws one batch."""

    steps = 1

    def __init__(self, rows):
        self.rows = rows

    def batches(self, rng):
        return iter([self.rows])


class Recorder:
    """An optimizer that only remembers the gradients it was to apply."""

    def __init__(self, parameters):
        self.parameters = parameters

    def step(self):
        self.seen = [p.grad.clone() for p in self.parameters]

    def zero_grad(self, set_to_none=True):
        for p in self.parameters:
            p.grad = None


def test_a_step_follows_the_mean_over_texts_however_long_they_are(mounted):
    model, parameters, data = mounted
    rows, recorder = np.arange(11), Recorder(parameters)
    plain_training(model, parameters, data, Fixed(rows), recorder).run(np.random.default_rng(0))
    total = [torch.zeros_like(p) for p in parameters]
    for row in rows:
        ids, mask = collate(data, np.array([row]))
        logits = torch.log_softmax(model(ids, mask)[0], dim=1)
        loss = -torch.stack([logits[i, ids[0, i + 1]] for i in range(ids.shape[1] - 1)]).mean()
        gradients = torch.autograd.grad(loss, parameters)
        total = [t + g / len(rows) for t, g in zip(total, gradients, strict=True)]
    for found, naive in zip(recorder.seen, total, strict=True):
        torch.testing.assert_close(found, naive, rtol=1e-3, atol=1e-6)
