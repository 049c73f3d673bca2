"""Model folders, names and targets that went wrong without a word: each is loaded right, or refused by one message."""

import pytest

from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.inspection import inspect_backbone

from .conftest import Invoke

REFUSED = {
    "bert_adapter": r"PEFT adapter \(adapter_config.json\).*Merge it",
    "bert_beside_adapter": r"PEFT adapter \(adapter_config.json\).*Merge it",
    "bert_added_tokens": r"2 tokens beyond the embedding matrix of 95 rows, such as 'zyzzyva' \(95\)",
    "bert_bad_tokenizer": "its tokenizer cannot be read",
    "bert_bin_truncated": "its weights cannot be read.*damaged or cut off",
    "bert_fewer_layers": r"16 have no place in the model.*encoder\.layer\.1\.",
    "bert_lacks_a_weight": r"would be random: encoder\.layer\.1\.attention\.self\.query\.weight",
    "bert_lfs_pointer": "model.safetensors is a git-lfs pointer.*git lfs pull",
    "bert_module_prefix": r"37 are not in the file.*every name begins with 'module\.'",
    "bert_more_layers": r"16 are not in the file.*encoder\.layer\.2\.",
    "bert_nan": "not finite",
    "bert_no_tokenizer": "no tokenizer files.*vocab.txt",
    "bert_tokenizer_pointer": "tokenizer.json is a git-lfs pointer",
    "bert_truncated": "model.safetensors is damaged or was cut off",
    "bert_wider": r"6 have another shape: encoder\.layer\.0\.intermediate\.dense\.bias \(\(32,\) in the file",
    "own_code": "its config.json cannot be read",
    "t5": "encoder-decoder",
}
"""Folder -> what its message says."""
REFUSED_UNREAD = set(REFUSED) - {
    "bert_bin_truncated",
    "bert_fewer_layers",
    "bert_lacks_a_weight",
    "bert_module_prefix",
    "bert_more_layers",
    "bert_nan",
    "bert_wider",
}
"""Folders that are refused before a weight is read."""
LOADED = [
    "albert",
    "bert_bin_only",
    "bert_full",
    "bert_mlm",
    "bert_no_pad",
    "bert_odd_width",
    "bert_old_names",
    "bert_sharded",
    "gpt2",
    "llama_tied",
    "roberta_mlm",
]


def load(models, name, **changes):
    return load_backbone(BackboneConfig(name=name, **changes), base=models)


def test_every_folder_that_is_built_is_a_case(models):
    assert {folder.name for folder in models.iterdir()} == {*REFUSED, *LOADED}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_with_is_refused_by_name(models, name):
    with pytest.raises(UserError, match=f"(?s)^backbone '{name}'.*{REFUSED[name]}"):
        load(models, name)


@pytest.mark.parametrize("name", [*REFUSED, *LOADED])
def test_a_folder_is_judged_without_its_weights_as_far_as_that_goes(models, name):
    config = BackboneConfig(name=name)
    if name in REFUSED_UNREAD:
        with pytest.raises(UserError, match=f"(?s){REFUSED[name]}"):
            inspect_backbone(config, base=models)
    else:
        facts = inspect_backbone(config, base=models)
        assert facts.positions == (64 if name in ("gpt2", "llama_tied") else 32)
        if name in LOADED:
            assert load(models, name).facts == facts


@pytest.mark.parametrize("name", LOADED)
def test_what_is_loaded_is_the_same_at_every_load(models, name):
    first, again = load(models, name), load(models, name)
    assert first.sha256 == again.sha256
    assert not [key for key in first.model.state_dict() if "pooler" in key]


def test_one_model_has_one_hash_however_it_was_saved(models):
    full, *others = (
        load(models, name).sha256 for name in ("bert_full", "bert_bin_only", "bert_sharded", "bert_old_names")
    )
    assert set(others) == {full}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("load_bert_adapter", "Merge it into the weights"),
        ("load_bert_lfs_pointer", "git-lfs pointer"),
        ("load_bert_no_tokenizer", "no tokenizer files"),
        ("load_bert_truncated", "damaged or was cut off"),
        ("target_typo", "'keey' matches nothing in the backbone. Did you mean 'key'?"),
        ("over_positions", "data.max_length is 48, but backbone 'toy' reads at most 32 tokens"),
    ],
)
def test_a_run_on_what_is_refused_ends_with_one_message(invoke: Invoke, inputs_with_models, case, said):
    done = invoke("run", f"{case}.yaml")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("case", ["mlm_no_pooler", "dp_pooler", "gpt2_svd"])
def test_a_run_on_what_was_refused_or_wrong_before_succeeds(invoke: Invoke, inputs_with_models, case):
    done = invoke("run", f"{case}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
