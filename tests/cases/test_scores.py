"""Scores of inputs that went wrong: other scripts, models that blow up, candidates unlike each other."""

import json
from pathlib import Path

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
