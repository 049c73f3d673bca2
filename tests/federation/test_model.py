"""LoRA layers against a naive reference, on every kind of linear layer, and what is left out of them."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from qlorabench.defenses.frozen_a import FrozenA
from qlorabench.errors import UserError
from qlorabench.federation.model import AdapterModel, initial_state
from qlorabench.seeding import Seed
from qlorabench.suite.schema import BackboneConfig, HeadConfig, LoraConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.inspection import layers_of
from qlorabench.tasks.toy import fill, toy_tokenizer

from .systems import random_state

WIDTH = 64
IDS = torch.arange(1, 9)[None]
SQUARE = "attn.c_proj"
"""GPT-2's one Conv1D whose weight is square: transposed, it fits as well."""


def bert(**changes):
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": WIDTH}
    config = BertConfig(vocab_size=len(toy_tokenizer()), initializer_range=0.2, **{**sizes, **changes})
    return filled(BertModel(config))


def gpt2():
    return filled(GPT2Model(GPT2Config(vocab_size=50, n_embd=WIDTH, n_layer=2, n_head=4, initializer_range=0.2)))


def filled(model):
    fill(model, seed=Seed(3), factors={})
    return model.eval().requires_grad_(False)


def adapted(backbone, *targets, rank=3):
    lora = LoraConfig(rank=rank, alpha=7.5, targets=targets)
    return AdapterModel(backbone, lora, classes=2, width=WIDTH).eval()


def outputs(model):
    with torch.no_grad():
        return model(IDS, torch.ones_like(IDS))


@pytest.mark.parametrize(
    ("backbone", "targets"),
    [(bert, ("query", "dense")), (gpt2, ("c_attn",)), (gpt2, (SQUARE,)), (gpt2, ("c_attn", "c_proj", "c_fc"))],
    ids=["linear", "conv1d", "square", "every-conv1d"],
)
def test_an_adapter_adds_the_scaled_product_of_its_factors_to_w0(backbone, targets):
    model = adapted(backbone(), *targets)
    state = random_state(model.layout)
    model.load(state)
    naive = adapted(backbone(), *targets)
    naive.load(initial_state(naive, head=HeadConfig(), seed=Seed(0)))
    naive.load({name: value for name, value in state.items() if name.startswith("head")})
    modules = dict(naive.encoder.get_base_model().named_modules())
    for name, w0 in model.frozen_weights().items():
        merged = w0 + 7.5 / 3 * state[f"{name}.B"] @ state[f"{name}.A"]
        layer = modules[name].base_layer
        layer.weight.data = merged if isinstance(layer, nn.Linear) else merged.T.contiguous()
    assert not torch.allclose(outputs(model), outputs(adapted(backbone(), *targets)))
    torch.testing.assert_close(outputs(model), outputs(naive), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["c_attn", SQUARE])
def test_frozen_weights_map_inputs_to_outputs_on_conv1d_too(target):
    model = adapted(gpt2(), target)
    layers = dict(model.encoder.get_base_model().named_modules())
    for name, w0 in model.frozen_weights().items():
        layer = layers[name].base_layer
        x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(x @ w0.T + layer.bias, layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["c_attn", SQUARE])
def test_an_svd_start_lies_in_the_first_directions_of_the_input_of_conv1d(target):
    model = adapted(gpt2(), target)
    start = initial_state(model, head=HeadConfig(), seed=Seed(0))
    defense = FrozenA(FrozenA.Config(init="svd"))
    start = defense.initialise(start, frozen_weights=model.frozen_weights(), rng=Seed(0).numpy())
    for name, layer in dict(model.encoder.get_base_model().named_modules()).items():
        if f"{name}.A" in start:
            answers = start[f"{name}.A"].double() * 3**0.5 @ layer.base_layer.weight.double()
            strongest = torch.linalg.svdvals(layer.base_layer.weight.double())[:3]
            torch.testing.assert_close(answers.norm(dim=1), strongest, rtol=1e-4, atol=0)


def test_a_target_takes_whole_parts_of_names_and_says_which_is_wrong():
    with pytest.raises(UserError, match=r"'keey' matches nothing in the backbone. Did you mean 'key'"):
        adapted(bert(), "query", "keey")
    with pytest.raises(UserError, match=r"embeddings.word_embeddings \(Embedding\), which is no linear layer"):
        adapted(bert(), "query", "word_embeddings")


def test_layers_behind_the_loss_get_no_adapter():
    backbone = bert()  # with its pooler: not as the harness loads it
    model = adapted(backbone, "query", "dense")
    assert "pooler.dense" in layers_of(bert()).linear
    assert not [name for name in model.layout.modules() if "pooler" in name]
    assert len(model.layout.modules()) == 2 + 2 * 3


def test_a_target_whose_layers_all_stand_behind_the_loss_is_refused_and_leaves_the_backbone_as_it_was():
    backbone = bert()
    names = list(backbone.state_dict())
    with pytest.raises(UserError, match=r"'pooler.dense' matches pooler.dense alone, which the loss does not reach"):
        adapted(backbone, "query", "pooler.dense")
    assert list(backbone.state_dict()) == names


def saved_in_bits(folder, bits, **changes):
    bert(**changes).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return load_backbone(BackboneConfig(name=str(folder), bits=bits), base=folder)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_backbone_in_few_bits_has_the_same_gradient_after_it_was_only_read(tmp_path, bits):
    backbone = saved_in_bits(tmp_path / "model", bits)
    again = load_backbone(BackboneConfig(name=str(tmp_path / "model"), bits=bits), base=tmp_path)
    assert backbone.sha256 == again.sha256
    model = adapted(backbone.model, "query", "dense")
    model.load(random_state(model.layout))
    parameters = [parameter for _, parameter in model.train_only(model.layout)]

    def gradients():
        return torch.autograd.grad(model(IDS, torch.ones_like(IDS)).square().sum(), parameters)

    before = gradients()
    outputs(model)
    for first, second in zip(before, gradients(), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_few_bits_come_back_near_the_saved_ones(tmp_path, bits):
    rough = adapted(saved_in_bits(tmp_path / "model", bits).model, "query", "dense").frozen_weights()
    exact = adapted(bert(), "query", "dense").frozen_weights()
    for name, weight in exact.items():
        # NF4's widest gap between levels is .304 of a block's largest value
        bound = 0.16 * weight.abs().max() if bits == 4 else weight.abs().max() / 127
        assert (rough[name] - weight).abs().max() <= bound


def test_bits_that_would_be_ignored_or_read_wrongly_are_refused(tmp_path):
    for name in ("toy", "toy-lm"):
        with pytest.raises(UserError, match=rf"bits is 8, but '{name}' is made in full precision"):
            load_backbone(BackboneConfig(name=name, bits=8), base=tmp_path)
    with pytest.raises(UserError, match=r"96 inputs.*multiple of its block of 64"):
        saved_in_bits(tmp_path / "model", 4, intermediate_size=96)
