from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.suite.schema import BackboneConfig, TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.encoding import encode_causal
from qlorabench.tasks.task import load_data, prepare
from qlorabench.tasks.toy_lm import toy_lm_tokenizer
from qlorabench.threats.challenge import draw_challenge

HERE = Path(__file__).parent
CANARIES = {"count": 6, "repetitions": 5, "references": 9}
TASK = {
    "backbone": {"name": "toy-lm"},
    "objective": "language-modeling",
    "data": {"source": "toy", "max_length": 24, "test_rows": 40, "holdout_rows": 40},
    "clients": 3,
    "rows_per_client": [16, 40, 40],
    "canaries": CANARIES,
}


def task_of(**changes):
    return TaskConfig.model_validate({**TASK, **changes})


def prepared(seed=0, **changes):
    config = task_of(**changes)
    return prepare(config, load_data(config, base=HERE), toy_lm_tokenizer(), seed=Seed(seed, ("data",)))


def test_inserted_canaries_stand_behind_the_table_and_at_their_clients():
    task, config = prepared(), task_of()
    inserted = [c for c in task.canaries if c.inserted]
    assert [task.texts[row] for row in task.canary_rows] == [c.text for c in inserted]
    assert len(task.encoded) == len(task.texts) == prepared(canaries=None).encoded.lengths.size + 3
    for row, canary in zip(task.canary_rows, inserted, strict=True):
        held = [int((rows == row).sum()) for rows in task.client_rows]
        assert held == [5 if client == canary.client else 0 for client in range(3)]
        assert row not in task.test
        assert row not in task.holdout
    assert [len(rows) for rows in task.client_rows] == config.examples == [16, 40 + 10, 40 + 5]


def test_canaries_change_no_other_draw():
    task, without = prepared(), prepared(canaries=None)
    for rows, plain in zip(task.client_rows, without.client_rows, strict=True):
        np.testing.assert_array_equal(rows[: len(plain)], plain)
    np.testing.assert_array_equal(task.holdout, without.holdout)
    assert without.canaries == ()
    assert without.canary_rows.shape == (0,)


def test_never_inserted_canaries_are_in_no_text():
    task = prepared()
    kept = [c.text for c in task.canaries if not c.inserted]
    assert len(kept) == 3
    assert not set(kept) & set(task.texts)


def test_no_membership_game_asks_about_a_canary():
    task = prepared(seed=1)
    for seed in range(20):
        assert not np.isin(draw_challenge(task, insiders=1, most=500, seed=Seed(seed)).rows, task.canary_rows).any()


def test_a_secret_that_would_be_cut_off_is_an_error():
    with pytest.raises(UserError, match=r"max_length to \d+ or more"):
        prepared(data={**TASK["data"], "max_length": 8})


@pytest.mark.parametrize("length", [4, 6, 40])
def test_a_text_starts_and_ends_with_its_special_tokens_however_long(length):
    tokenizer = toy_lm_tokenizer()
    data = encode_causal(tokenizer, ["the film is dull 47", "", "bold"], [0, 0, 1], max_length=length)
    words = [tokenizer.decode(ids).split() for ids in data.ids]
    assert [w[0] for w in words] == ["[BOS]"] * 3
    assert [w[-1] for w in words] == ["[EOS]"] * 3
    assert words[0][1:-1] == ["the", "film", "is", "dull", "4", "7"][: length - 2]
    assert data.lengths.tolist() == [len(w) for w in words]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "classification"}, "canaries need"),
        ({"head": {"train": "shared"}}, "there is no head"),
        ({"backbone": {"name": "minilm-l6"}}, "smollm2-135m"),
        ({"backbone": {"name": "toy"}}, "is an encoder"),
    ],
)
def test_what_does_not_fit_the_objective_is_told(changes, said):
    with pytest.raises(ValidationError, match=said):
        task_of(**changes)


@pytest.mark.parametrize("objective", ["classification", "language-modeling"])
def test_the_toy_language_model_is_the_same_at_every_call(objective):
    config = BackboneConfig(name="toy-lm")
    first, second = (load_backbone(config, base=HERE, objective=objective) for _ in range(2))
    assert first.sha256 == second.sha256
    assert first.width == 96
    assert hasattr(first.model, "lm_head") == (objective == "language-modeling")


def saved(folder, model):
    model.save_pretrained(folder)
    toy_lm_tokenizer().save_pretrained(folder)
    return BackboneConfig(name=str(folder))


def test_a_saved_causal_model_keeps_its_weights(tmp_path):
    toy = load_backbone(BackboneConfig(name="toy-lm"), base=HERE, objective="language-modeling")
    loaded = load_backbone(saved(tmp_path / "lm", toy.model), base=HERE, objective="language-modeling")
    assert loaded.sha256 == toy.sha256


@pytest.mark.parametrize("kind", ["encoder", "headless"])
def test_a_model_that_predicts_no_next_token_is_refused(tmp_path, kind):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes["initializer_range"] = 0.5
    encoder = BertForMaskedLM(BertConfig(vocab_size=len(toy_lm_tokenizer()), **sizes))
    toy = load_backbone(BackboneConfig(name="toy-lm"), base=HERE)
    config = saved(tmp_path / "lm", encoder if kind == "encoder" else toy.model)
    with pytest.raises(UserError, match="no causal language model"):
        load_backbone(config, base=HERE, objective="language-modeling")
