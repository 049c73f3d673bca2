"""Tables of users: which rows are used is said, and what cannot be used is one message."""

import json
from pathlib import Path
from typing import Any

import pytest

from qlorabench.errors import UserError
from qlorabench.suite.loading import load_suite
from qlorabench.suite.plan import make_plan
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.report import DataReport
from qlorabench.tasks.task import check_data

from .conftest import Invoke


def report(inputs: Path, name: str, **more: Any) -> DataReport:
    suite = load_suite(inputs / f"{name}.yaml")
    (config,) = suite.config.tasks.values()
    tokenizer = load_backbone(config.backbone, base=inputs, objective=config.objective).tokenizer
    return check_data(config, base=inputs, tokenizer=tokenizer, **({"seeds": suite.config.seeds} | more))


def manifest(inputs: Path, name: str) -> dict[str, Any]:
    return json.loads((inputs / "runs" / name / "manifest.json").read_text())["tasks"]


def test_texts_that_are_alike_once_cut_are_one_message(invoke: Invoke, inputs: Path) -> None:
    done = invoke("run", "same_head.yaml")
    assert done.returncode == 2
    for words in (
        "tasks.t.rows_per_client:",
        "has 1 rows; 108 are asked for",
        "159 that the model cannot tell from another",
        "of which 12 are kept",
        "A larger data.max_length keeps more texts apart",
    ):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (inputs / "runs" / "same_head" / "records.jsonl").exists()


def test_a_larger_length_tells_them_apart(inputs: Path) -> None:
    text = (inputs / "same_head.yaml").read_text()
    (inputs / "longer.yaml").write_text(text.replace("max_length: 12", "max_length: 32"))
    made = report(inputs, "longer")
    assert made.used >= 108
    assert made.got == {0: (8, 20)}


def test_rows_without_a_label_are_counted_for_the_user_and_for_the_manifest(invoke: Invoke, inputs: Path) -> None:
    done = invoke("run", "half_empty.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "t: 80 of 160 rows are used; left out: 80 with an empty text, label or group" in done.stdout
    facts = manifest(inputs, "half_empty")["t"]
    assert (facts["rows_read"], facts["rows_used"], facts["empty_removed"]) == (160, 80, 80)
    assert facts["rows_got_by_seed"] == {"0": [8, 20]}
    assert len(facts["data_sha256"]) == 64


def test_a_huge_cell_is_a_cell(inputs: Path) -> None:
    made = report(inputs, "huge_field")
    assert (made.read, made.used, made.got) == (161, 160, {0: (8, 20)})
    assert made.tokens
    assert made.tokens.blank == 1


@pytest.mark.parametrize(
    "kind",
    [
        "{kind: label-proportions, level: severe}",
        "{kind: label-proportions, level: mild}",
        "{kind: dirichlet, alpha: 0.05}",
    ],
)
def test_label_proportions_have_all_rows_to_choose_from(inputs: Path, kind: str) -> None:
    text = (inputs / "label_proportions.yaml").read_text()
    (inputs / "skewed.yaml").write_text(text.replace("{kind: label-proportions, level: severe}", kind))
    made = report(inputs, "skewed", seeds=range(6))
    assert set(made.got.values()) == {(40, 40, 40)}


def test_half_a_surrogate_pair_in_a_label_is_one_message(invoke: Invoke) -> None:
    done = invoke("run", "surrogate.yaml")
    assert done.returncode == 2
    assert "label_surrogate.jsonl, row 1: column 'label' holds half a surrogate pair" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["{csv: {path: text_only.csv, text: text}}", "{text: {path: text_only.csv}}"])
def test_language_modeling_needs_texts_alone(inputs: Path, source: str) -> None:
    text = (inputs / "lm_no_label.yaml").read_text()
    (inputs / "lm.yaml").write_text(text.replace("{csv: {path: text_only.csv, text: text}}", source))
    made = report(inputs, "lm")
    assert made.got == {0: (8, 20)}
    assert made.labels == {}


def test_language_modeling_without_labels_runs(invoke: Invoke) -> None:
    done = invoke("run", "lm_no_label.yaml", "--only", "utility")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_classification_without_a_label_column_is_told_by_check(inputs: Path, invoke: Invoke) -> None:
    text = (inputs / "half_empty.yaml").read_text()
    (inputs / "none.yaml").write_text(text.replace(", label: label}", "}"))
    done = invoke("check", "none.yaml")
    assert done.returncode == 2
    assert "tasks.t.data.source.csv.label (line 5): missing" in done.stderr


@pytest.mark.parametrize(
    ("length", "said"),
    [(12, "25 % of the texts are cut to 12 tokens"), (6, "tokens; most texts are known by their beginning alone")],
)
def test_texts_longer_than_the_length_are_said(inputs: Path, length: int, said: str) -> None:
    text = (inputs / "half_empty.yaml").read_text().replace("max_length: 12", f"max_length: {length}")
    (inputs / "long.yaml").write_text(text.replace("half_empty_labels.csv", "long_texts.csv"))
    assert any(said in line for line in report(inputs, "long").lines())


def test_a_text_column_as_label_is_one_message(inputs: Path, invoke: Invoke) -> None:
    text = (inputs / "half_empty.yaml").read_text()
    text = text.replace("half_empty_labels.csv", "long_texts.csv").replace("label: label", "label: text")
    (inputs / "free.yaml").write_text(text)
    done = invoke("run", "free.yaml")
    assert done.returncode == 2
    assert "distinct labels in" in done.stderr
    assert "may be no column of labels" in done.stderr


@pytest.mark.parametrize("path", ["'" + "x" * 5000 + "'", '"a\\0b"', ".", "/dev/zero", "~nobody-of-that-name/x"])
def test_a_path_that_is_no_file_is_one_message(inputs: Path, path: str) -> None:
    text = (inputs / "half_empty.yaml").read_text()
    (inputs / "path.yaml").write_text(text.replace("half_empty_labels.csv", path))
    with pytest.raises(UserError, match="data file"):
        report(inputs, "path")


# ---- clients of one row


def test_one_row_leaves_no_game_of_members(invoke: Invoke) -> None:
    done = invoke("check", "one_row.yaml")
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert "no signal t/dp/client/calibrated-loss: needs two members to ask about" in said
    assert "server/span: needs two" not in said


def test_a_federation_of_clients_with_one_row_trains_and_is_read(invoke: Invoke, inputs: Path) -> None:
    done = invoke("run", "one_row.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (inputs / "runs" / "one-row" / "records.jsonl").read_text().splitlines()]
    status = {(row["system"], row["kind"], row["attack"]): row["status"] for row in rows}
    assert {key for key, found in status.items() if found == "unsupported"} == {
        ("plain", "leakage", "calibrated-loss"),
        ("dp", "leakage", "calibrated-loss"),
    }
    assert set(status.values()) == {"ok", "unsupported"}


@pytest.mark.parametrize(
    ("sizes", "threats", "members"),
    [
        ("[1, 1]", "[server]", True),
        ("[1, 1]", "[client]", False),
        ("[9, 1]", "[client]", False),
        ("[1, 2]", "[client]", True),
    ],
)
def test_the_game_needs_two_rows_of_clients_that_no_seat_holds(
    inputs: Path, sizes: str, threats: str, members: bool
) -> None:
    text = (inputs / "one_row.yaml").read_text()
    text = text.replace("rows_per_client: 1", f"rows_per_client: {sizes}").replace("[server, client]", threats)
    (inputs / "few.yaml").write_text(text)
    cells = [
        c for c in make_plan(load_suite(inputs / "few.yaml")).cells if c.attack and c.attack.name == "calibrated-loss"
    ]
    assert cells
    assert all((cell.blind is None) == members for cell in cells)
