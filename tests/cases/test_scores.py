"""Scores of inputs that went wrong: other scripts, models that blow up, candidates unlike each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from qlorabench.engines import run as running
from qlorabench.engines.pool import JobFailed

from .conftest import Invoke


def rows_of(folder: Path, suite: str) -> list[dict]:
    journal = folder / "runs" / suite / "records.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def test_a_russian_text_that_is_read_whole_counts(invoke: Invoke, inputs: Path) -> None:
    done = invoke("run", "cyrillic_words.yaml", "--only", "*attention-span")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["metric"]: row for row in rows_of(inputs, "cyrillic-words") if row["kind"] == "leakage"}
    for metric in ("exact", "rouge1", "rouge2", "exact_with_marks"):
        assert found[metric]["value"] > 0, metric
        assert found[metric]["n"] == 1, metric


def test_a_model_that_blew_up_has_no_numbers(invoke: Invoke, inputs: Path) -> None:
    done = invoke("run", "nan_logits.yaml")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    rows = rows_of(inputs, "nan-logits")
    judged = [row for row in rows if row["kind"] != "bandwidth"]
    assert all(row["status"] == "failed" and row["value"] is None for row in judged)
    for row in judged:
        assert "not a number" in row["note"]
        assert "optimizer.lr" in row["note"]


SKEWED = """
name: skewed
seeds: [5, 7, 9]
tasks:
  opinions:
    backbone: {name: toy}
    data: {source: toy, max_length: 12, test_rows: 60, holdout_rows: 100}
    clients: 3
    rows_per_client: 40
    partition: {kind: dirichlet, alpha: 0.05}
    training: {rounds: 1, local_steps: 1, batch_size: 8, optimizer: {lr: 1.0e-7}}
systems:
  plain: {}
threats: [client]
attacks: [plain_loss.py:PlainLoss: {sign: 1}]
"""


def test_a_model_that_was_not_trained_leaks_nothing_under_any_seed(invoke: Invoke, inputs: Path) -> None:
    (inputs / "skewed.yaml").write_text(SKEWED)
    done = invoke("run", "skewed.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["seed"]: row for row in rows_of(inputs, "skewed") if row["metric"] == "auc"}
    assert {seed: row["leakage_low"] for seed, row in found.items()} == {5: 0.0, 7: 0.0, 9: 0.0}
    for seed, following in ((5, 7), (7, 9), (9, 5)):
        assert f"control: seed {following}'s adapters" in found[seed]["note"]
    assert not any(row["validated"] for row in found.values())


def test_the_control_of_one_seed_is_trained_where_only_that_seed_is_asked_for(invoke: Invoke, inputs: Path) -> None:
    (inputs / "skewed.yaml").write_text(SKEWED)
    done = invoke("run", "skewed.yaml", "--only", "*seed-9/client*")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = [row for row in rows_of(inputs, "skewed") if row["metric"] == "auc"]
    assert "control: seed 5's adapters" in found["note"]
    assert len(list((inputs / "runs" / "skewed" / "transcripts").iterdir())) == 2


def test_a_control_that_was_not_trained_fails_the_cell_that_needs_it(
    invoke: Invoke, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = running.ensure_trained

    def ensure_trained(pool: Any, spec: Any, *arguments: Any, **named: Any) -> None:
        if spec.seed == 7:
            raise JobFailed("RuntimeError: diverged")
        original(pool, spec, *arguments, **named)

    monkeypatch.setattr(running, "ensure_trained", ensure_trained)
    (inputs / "skewed.yaml").write_text(SKEWED)
    invoke("run", "skewed.yaml")
    found = {row["seed"]: row for row in rows_of(inputs, "skewed") if row["kind"] == "leakage" and row["headline"]}
    assert {seed: row["status"] for seed, row in found.items()} == {5: "failed", 7: "failed", 9: "ok"}
    assert "its control, the federation of seed 7, was not trained: RuntimeError: diverged" in found[5]["note"]
    assert found[5]["value"] is None
