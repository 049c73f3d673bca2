import hashlib
import os
import subprocess
import sys

import pytest
import torch

from qlorabench.tasks.toy import toy_model
from qlorabench.tasks.toy_lm import toy_lm_model

PRINT = """
from qlorabench.tasks.toy import toy_model
from qlorabench.tasks.toy_lm import toy_lm_model
from tests.tasks.test_toy import weights_of
print(weights_of(toy_model()), weights_of(toy_lm_model()))
"""
RECORDED = {
    "toy": "0f2f4fbfab20ec662e084130e6410ed93d00a5bd1d47a5eea0540f67bbc0ea4a",
    "toy-lm": "c93d96100bedfd286f347787c21fa07179fbfee55c72f1f928cc58538892b026",
}


def weights_of(model):
    """Return the SHA-256 of names and bytes of all weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def test_the_toy_backbones_are_those_that_were_recorded():
    assert {"toy": weights_of(toy_model()), "toy-lm": weights_of(toy_lm_model())} == RECORDED


def test_the_toy_backbones_do_not_depend_on_the_processor():
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(RECORDED.values())


def test_making_them_leaves_torchs_own_stream_where_it_was():
    before = torch.get_rng_state()
    toy_model(), toy_lm_model()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "words", "deviation"),
    [(toy_model(), "embeddings.word_embeddings.weight", 0.8), (toy_lm_model(), "model.embed_tokens.weight", 0.16)],
    ids=["toy", "toy-lm"],
)
def test_weights_are_those_of_a_new_model_with_louder_words(model, words, deviation):
    weights = dict(model.named_parameters())
    assert abs(float(weights[words][1:].detach().std()) / deviation - 1) < 0.05
    assert not weights[words][0].any()  # the padding's row
    for name, weight in weights.items():
        if weight.dim() == 1:
            assert (weight == (0 if name.endswith("bias") else 1)).all()
        elif "embed" not in name and "lm_head" not in name:
            assert abs(float(weight.detach().std()) / 0.08 - 1) < 0.05
            assert abs(float(weight.detach().mean())) < 0.01
