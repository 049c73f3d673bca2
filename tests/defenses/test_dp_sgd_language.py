"""DP-SGD on a causal language model: the unit is a text, whatever its length."""

from dataclasses import replace

import numpy as np
import torch

from qlorabench.defenses.dp_sgd import DpSgd
from qlorabench.federation.bench import describe
from qlorabench.federation.client import local_training
from qlorabench.federation.facts import DefenseFacts
from qlorabench.federation.protocol import Protocol
from qlorabench.tasks.encoding import collate

from ..federation.language import language_bench, language_system
from ..federation.systems import random_state

CLIP, RATE, LR = 0.4, 0.25, 0.3


class Fixed:
    """A sampler that draws what it is told."""

    def __init__(self, *batches):
        self.steps, self._batches = len(batches), batches

    def batches(self, rng):
        return iter(self._batches)


def noiseless(bench, spec):
    """Return the model and the local training of client 1 with clipping and no noise."""
    plain, _ = describe(bench, spec)
    model = bench.model(spec)
    state = random_state(model.layout)
    model.load(state)
    defense = DpSgd(DpSgd.Config(clip_norm=CLIP))
    guarantee = {"sample_rate": RATE, "noise_multiplier": 0.0}
    told = DefenseFacts("dp-sgd", defense.config.model_dump(mode="json"), {"clients": [guarantee] * 3})
    protocol = Protocol(replace(plain, defenses=(told,)), [defense])
    data = bench.tasks[0].client(1)
    training = local_training(model, [defense], protocol, data, client=1, round=0, seed=spec.random)
    return model, state, data, training


def clipped_sum(model, parameters, data, rows):
    """Return the sum of the gradients of one text each, clipped to CLIP, and how many were longer."""
    total, longer = [torch.zeros_like(p) for p in parameters], 0
    for row in rows:
        ids, mask = collate(data, np.array([row]))
        chances = torch.log_softmax(model(ids, mask)[0, :-1], dim=1)
        loss = -chances.gather(1, ids[0, 1:, None]).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        longer += norm > CLIP
        total = [t + g * min(1.0, CLIP / norm) for t, g in zip(total, gradients, strict=True)]
    return total, longer


def test_each_text_is_clipped_on_its_own():
    bench, spec = language_bench(), language_system()
    rows = np.array([0, 3, 5, 8, 13, 21, 34, 38, 39, 1, 2])
    model, state, data, training = noiseless(bench, spec)
    assert len(set(data.lengths[rows].tolist())) > 2
    replace(training, sampler=Fixed(rows)).run(np.random.default_rng(0))
    after = [p.detach().clone() for p in training.parameters]
    model.load(state)
    before = [p.detach().clone() for p in training.parameters]
    naive, longer = clipped_sum(model, training.parameters, data, rows)
    assert longer > 0
    for old, new, gradient in zip(before, after, naive, strict=True):
        torch.testing.assert_close(new, old - LR * gradient / (RATE * len(data)), rtol=1e-3, atol=1e-6)
