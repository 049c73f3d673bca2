import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, BertConfig, BertModel, BloomConfig, GPT2Config, OPTConfig, RobertaConfig

from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.inspection import check_positions, inspect_backbone, positions_of, skeleton
from qlorabench.tasks.packages import PackagedFile
from qlorabench.tasks.places import place_of
from qlorabench.tasks.reach import idle_parameters, probe_of
from qlorabench.tasks.reading import read_configuration
from qlorabench.tasks.toy import toy_config, toy_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (BertConfig(**SIZES, max_position_embeddings=40), 40),
        (RobertaConfig(**SIZES, max_position_embeddings=514, pad_token_id=1), 512),
        (RobertaConfig(**SIZES, max_position_embeddings=40, pad_token_id=0), 39),
        (GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=48), 48),
        (OPTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=56), 56),
        (AutoConfig.for_model("llama", **SIZES, max_position_embeddings=64), 64),
        (BloomConfig(hidden_size=32, n_layer=1, n_head=4), None),
    ],
    ids=["bert", "roberta", "roberta-pad-0", "gpt2", "opt", "llama", "no-bound"],
)
def test_positions_are_as_many_as_the_model_can_read(config, positions):
    model = skeleton("it", config, "classification")
    assert positions_of(model) == positions
    if positions:
        read = type(model)(config).eval()
        ids = torch.full((1, positions), 5)
        with torch.no_grad():
            assert read(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.shape[1] == positions


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SIZES, max_position_embeddings=20),
        RobertaConfig(**SIZES, max_position_embeddings=20, pad_token_id=1),
        GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=20),
        OPTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=20),
    ],
    ids=["bert", "roberta", "gpt2", "opt"],
)
def test_a_token_more_is_one_too_many(config):
    model = skeleton("it", config, "classification")
    ids = torch.full((1, positions_of(model) + 1), 5)
    with torch.no_grad(), pytest.raises((IndexError, RuntimeError)):
        type(model)(config).eval()(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_texts_longer_than_the_positions_are_refused_with_the_setting_named():
    check_positions(32, 32, backbone="toy")
    check_positions(4096, None, backbone="bloom")
    with pytest.raises(
        UserError, match=r"^data.max_length is 33, but backbone 'toy' reads at most 32 tokens.*32 or less"
    ):
        check_positions(33, 32, backbone="toy")


@pytest.mark.parametrize("objective", ["classification", "language-modeling"])
@pytest.mark.parametrize("name", ["toy-lm", "smollm2-135m"])
def test_packaged_backbones_are_known_without_their_files(monkeypatch, tmp_path, name, objective):
    monkeypatch.setattr(PackagedFile, "fetch", lambda _: pytest.fail("a package was fetched"))
    facts = inspect_backbone(BackboneConfig(name=name), base=tmp_path, objective=objective)
    assert facts.match(("q_proj", "v_proj")).keys() == {"q_proj", "v_proj"}
    assert ("lm_head" in facts.layers.linear) == (objective == "language-modeling")


def test_minilm_is_known_without_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(PackagedFile, "fetch", lambda _: pytest.fail("a package was fetched"))
    facts = inspect_backbone(BackboneConfig(name="minilm-l6"), base=tmp_path)
    assert (facts.positions, facts.vocabulary) == (512, 30522)
    assert {len(layers) for layers in facts.match(("query", "key", "value")).values()} == {6}
    assert facts.dropout == {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "objective"), [("minilm-l6", "classification"), ("smollm2-135m", "language-modeling")]
)
def test_what_is_known_without_the_files_is_what_they_say(tmp_path, name, objective):
    config = BackboneConfig(name=name)
    loaded = load_backbone(config, base=tmp_path, objective=objective)
    assert loaded.facts == inspect_backbone(config, base=tmp_path, objective=objective)


class Aside(nn.Module):
    """A model with a layer that runs beside its output, and one that this text does not run."""

    def __init__(self):
        super().__init__()
        self.words, self.used, self.beside, self.other = (
            nn.Embedding(9, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
        )

    def forward(self, input_ids, **_):
        hidden = self.used(self.words(input_ids))
        self.beside(hidden)
        output = type("Output", (), {})()
        output.last_hidden_state = hidden
        return output


def test_idle_is_what_runs_without_the_output_depending_on_it():
    model = Aside().requires_grad_(False)
    assert idle_parameters(model, "classification", torch.arange(4)[None], None) == {"beside.weight", "beside.bias"}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_poolers_weights_are_idle_and_no_others():
    model = BertModel(toy_config())
    ids = probe_of(model, 32)
    assert idle_parameters(model, "classification", ids, None) == {"pooler.dense.weight", "pooler.dense.bias"}


def saved(folder, **changes):
    """Save the toy encoder to ``folder`` with settings changed behind its back."""
    load_backbone(BackboneConfig(name="toy"), base=folder).model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return load_backbone(BackboneConfig(name=str(folder)), base=folder)


def test_the_hash_is_that_of_what_is_computed(tmp_path):
    toy = load_backbone(BackboneConfig(name="toy"), base=tmp_path)
    assert saved(tmp_path / "same", id2label={"0": "no"}, architectures=["BertForAnything"]).sha256 == toy.sha256
    for i, change in enumerate(({"num_attention_heads": 8}, {"hidden_act": "relu"}, {"hidden_dropout_prob": 0.1})):
        assert saved(tmp_path / f"other{i}", **change).sha256 != toy.sha256


def test_another_order_of_words_is_another_hash(tmp_path):
    toy = saved(tmp_path / "first")
    rules = json.loads((tmp_path / "first" / "tokenizer.json").read_text())
    words = rules["model"]["vocab"]
    words["film"], words["plot"] = words["plot"], words["film"]
    (tmp_path / "first" / "tokenizer.json").write_text(json.dumps(rules))
    assert load_backbone(BackboneConfig(name=str(tmp_path / "first")), base=tmp_path).sha256 != toy.sha256


def test_a_call_of_the_tokenizer_changes_no_hash(tmp_path):
    from qlorabench.tasks.backbones import content_hash

    toy = load_backbone(BackboneConfig(name="toy"), base=tmp_path)
    toy.tokenizer(["a film", "a"], truncation=True, max_length=4, padding=True)
    assert content_hash(toy.model, toy.tokenizer, frozenset()) == toy.sha256


def test_a_folder_that_is_no_model_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match=r"holds no config.json"):
        place_of(BackboneConfig(name=str(tmp_path)), base=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(UserError, match=r"its config.json cannot be read"):
        read_configuration(place_of(BackboneConfig(name=str(tmp_path)), base=tmp_path))
