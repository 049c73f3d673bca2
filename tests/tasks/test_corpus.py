"""From rows of a file to rows that clients hold: what the model cannot tell apart goes, and is counted."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlorabench.errors import UserError
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.task import Corpus, check_data, data_seed, deal, deal_report, load_data, prepare, tokenize
from qlorabench.tasks.toy import NOUNS, toy_tokenizer
from qlorabench.tasks.toy_lm import toy_lm_tokenizer

HERE = Path(__file__).parent
TOY = {
    "backbone": {"name": "toy"},
    "data": {"source": "toy", "max_length": 12, "test_rows": 60, "holdout_rows": 100},
    "clients": 3,
    "rows_per_client": 40,
}


def task_of(**changes: Any) -> TaskConfig:
    data = {**TOY["data"], **changes.pop("data", {})}
    return TaskConfig.model_validate({**TOY, **changes, "data": data})


def written(folder: Path, rows: list[dict], *, sizes: Any = (4, 4), **changes: Any) -> TaskConfig:
    """A task of two clients over ``rows``, which stand in a file below ``folder``."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"jsonl": {"path": "rows.jsonl", "text": "text", "label": "label"} | changes.pop("columns", {})}
    data = {"source": source, "max_length": 8, "test_rows": 20, "holdout_rows": 4} | changes.pop("data", {})
    return task_of(data=data, clients=len(sizes), rows_per_client=list(sizes), **changes)


def words(i: int, count: int = 4) -> str:
    """Text number ``i``: known words, no two numbers below 1000 alike within three words."""
    base = len(NOUNS)
    chosen = [NOUNS[(i // base**k) % base] for k in range(3)]
    return " ".join(chosen + ["the"] * (count - 3))


def opinions(count: int, **more: Any) -> list[dict]:
    return [{"text": words(i), "label": i % 2} | more for i in range(count)]


def corpus(config: TaskConfig, folder: Path) -> Corpus:
    return tokenize(config, load_data(config, base=folder), toy_tokenizer())


# ---- what the model cannot tell apart


def test_texts_with_the_same_head_are_one_text(tmp_path: Path) -> None:
    heads = opinions(40)
    tails = [{"text": f"{row['text']} the the the", "label": row["label"]} for row in heads]
    made = corpus(written(tmp_path, heads[:20] + tails), tmp_path)
    # cut to 8 tokens, [CLS] and [SEP] among them, a tail keeps two words more than its head: it is another text
    assert len(made.table) == 60
    cut = corpus(written(tmp_path, heads[:20] + tails, data={"max_length": 5}), tmp_path)
    assert cut.table.texts == tuple(row["text"] for row in heads[:20] + tails[20:])
    assert cut.report.tokens
    assert (cut.report.tokens.alike, cut.report.tokens.conflicting) == (20, 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("partition", [{"kind": "iid"}, {"kind": "dirichlet", "alpha": 0.3}])
def test_no_row_that_is_held_out_looks_to_the_model_as_one_that_is_trained_on(
    seed: int, partition: dict, tmp_path: Path
) -> None:
    rows = [{"text": f"{words(i % 50)} {words(i)}", "label": i % 2} for i in range(200)]
    config = written(tmp_path, rows, data={"max_length": 5}, partition=partition)
    task = prepare(config, load_data(config, base=tmp_path), toy_tokenizer(), seed=data_seed(seed))
    seen = {task.encoded.ids[row].tobytes() for rows in task.client_rows for row in rows}
    others = [task.encoded.ids[row].tobytes() for row in [*task.test, *task.holdout]]
    assert not seen & set(others)
    assert len(set(others)) == len(others)


def test_the_first_row_stays_and_labels_that_contradict_it_are_counted(tmp_path: Path) -> None:
    rows = [*opinions(40), {"text": f" {words(0)} ", "label": 1}, {"text": words(1).replace(" ", "  "), "label": 0}]
    made = corpus(written(tmp_path, rows), tmp_path)
    assert made.table.texts == tuple(row["text"] for row in rows[:40])
    assert made.table.labels[:2] == (0, 1)
    assert (made.report.repeated, made.report.conflicting) == (1, 1)
    assert made.report.tokens
    assert (made.report.tokens.alike, made.report.tokens.conflicting) == (1, 1)
    assert made.report.used == 40


def test_texts_of_unknown_words_alone_are_left_out(tmp_path: Path) -> None:
    made = corpus(written(tmp_path, [*opinions(40), {"text": "сюжет тонок", "label": 0}]), tmp_path)
    assert made.report.tokens
    assert (len(made.table), made.report.tokens.blank) == (40, 1)
    assert made.report.tokens.unknown == pytest.approx(2 / 162)


def test_a_tokenizer_that_knows_no_text_is_refused(tmp_path: Path) -> None:
    rows = [{"text": f"слово {i}", "label": i % 2} for i in range(40)]
    with pytest.raises(
        UserError, match=r"backbone 'toy' knows no token of the 40 texts of 'rows.jsonl'.*tokenizer files"
    ):
        corpus(written(tmp_path, rows), tmp_path)


def test_encoded_rows_are_those_of_the_table(tmp_path: Path) -> None:
    rows = [*opinions(30), {"text": "слово", "label": 0}, *opinions(34)]
    made = corpus(written(tmp_path, rows), tmp_path)
    alone = toy_tokenizer()(list(made.table.texts), truncation=True, max_length=8)["input_ids"]
    assert [ids.tolist() for ids in made.encoded.ids] == alone
    assert made.encoded.labels.tolist() == list(made.table.labels)


# ---- keys


def test_the_fingerprint_follows_rows_labels_and_length(tmp_path: Path) -> None:
    def mark(rows: list[dict], **changes: Any) -> str:
        return corpus(written(tmp_path, rows, **changes), tmp_path).fingerprint

    rows = opinions(40)
    relabelled = [{"text": row["text"], "label": 1 - row["label"]} for row in rows]
    assert mark(rows) == mark(rows)
    assert len({mark(rows), mark(rows, data={"max_length": 5}), mark(opinions(41)), mark(relabelled)}) == 4


# ---- dealing


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "partition", [{"kind": "label-proportions", "level": "severe"}, {"kind": "dirichlet", "alpha": 0.1}]
)
def test_label_partitions_choose_among_all_rows_that_are_left(seed: int, partition: dict) -> None:
    config, even = task_of(partition=partition), task_of()
    data = load_data(config, base=HERE)
    skewed, plain = (prepare(c, data, toy_tokenizer(), seed=data_seed(seed)) for c in (config, even))
    assert [len(rows) for rows in skewed.client_rows] == [40, 40, 40]
    np.testing.assert_array_equal(skewed.test, plain.test)
    np.testing.assert_array_equal(skewed.holdout, plain.holdout)
    if partition["kind"] == "label-proportions":
        good = [int(skewed.encoded.labels[rows].sum()) for rows in skewed.client_rows]
        assert good == [36, 4, 20]


def test_too_few_rows_of_a_label_are_told_with_the_rows_there_are() -> None:
    config = task_of(partition={"kind": "label-proportions", "proportions": [[1.0, 0.0]]}, rows_per_client=120)
    with pytest.raises(UserError, match=r"'bad' 360 of 2\d\d"):
        check_data(config, base=HERE)


def test_groups_stand_by_row_of_the_prepared_task(tmp_path: Path) -> None:
    rows = [row | {"who": "ab"[i % 2]} for i, row in enumerate(opinions(60))]
    config = written(tmp_path, [*rows, *rows], columns={"group": "who"}, partition={"kind": "column", "column": "who"})
    task = prepare(config, load_data(config, base=tmp_path), toy_tokenizer(), seed=data_seed(0))
    assert len(task.groups["who"]) == len(task.texts) == 60
    assert [{task.groups["who"][row] for row in rows} for rows in task.client_rows] in ([{"a"}, {"b"}], [{"b"}, {"a"}])


def test_clients_that_got_fewer_rows_than_asked_for_are_named(tmp_path: Path) -> None:
    rows = [row | {"who": "small" if i < 5 else f"big{i % 2}"} for i, row in enumerate(opinions(300))]
    config = written(
        tmp_path,
        rows,
        sizes=[30, 30, 30],
        columns={"group": "who"},
        partition={"kind": "column", "column": "who"},
    )
    report = check_data(config, base=tmp_path, tokenizer=toy_tokenizer(), seeds=(0, 1))
    for seed in (0, 1):
        few = [i for i, n in enumerate(report.got[seed]) if n < 30]
        assert len(few) == 1
        n = report.got[seed][few[0]]
        said = f"seed {seed}: 1 of 3 clients have fewer rows than asked for: client {few[0]} has {n} of 30"
        assert said in report.lines()
    assert report.facts()["rows_got_by_seed"]["1"] == list(report.got[1])


def test_labels_that_no_client_holds_are_named(tmp_path: Path) -> None:
    rows = opinions(60)
    rows[7]["label"] = 2
    report = check_data(written(tmp_path, rows), base=tmp_path, seeds=range(8))
    missing = [seed for seed, names in report.unheld.items() if "2" in names]
    assert missing
    assert any(line.startswith(f"seed {missing[0]}: no client holds a text of") for line in report.lines())


# ---- what check tells without a backbone


def test_too_few_rows_are_told_with_what_was_left_out(tmp_path: Path) -> None:
    rows = [{"text": f"the the the the the the {words(i)}", "label": i % 2} for i in range(60)]
    config = written(tmp_path, [*rows, {"text": "", "label": 1}])
    assert check_data(config, base=tmp_path).used == 60
    with pytest.raises(UserError) as caught:
        check_data(config, base=tmp_path, tokenizer=toy_tokenizer())
    said = str(caught.value)
    assert "has 1 rows; 32 are asked for" in said
    assert "Of 61 rows" in said
    assert "1 with an empty text" in said
    assert "59 that the model cannot tell" in said
    assert "larger data.max_length" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {"label": "lable"}}, "no column 'lable'. Did you mean 'label'"),
        ({"columns": {"path": "row.jsonl"}}, "does not exist. Did you mean 'rows.jsonl'"),
        ({"columns": {"label": None}}, "gives no labels, and 'objective: classification' needs them"),
        ({"partition": {"kind": "column", "column": "who"}}, "no group column 'who'"),
        ({"sizes": (400, 4)}, "has 60 rows; 428 are asked for"),
    ],
)
def test_what_a_run_would_refuse_is_told_by_check(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_data(written(tmp_path, opinions(60), **changes), base=tmp_path)


def test_canaries_that_do_not_fit_the_length_are_told(tmp_path: Path) -> None:
    config = task_of(
        objective="language-modeling", backbone={"name": "toy-lm"}, canaries={"count": 4}, data={"max_length": 8}
    )
    check_data(config, base=HERE)
    with pytest.raises(UserError, match=r"a canary has \d+ tokens"):
        check_data(config, base=HERE, tokenizer=toy_lm_tokenizer())


@pytest.mark.parametrize(
    "partition", [{"kind": "dirichlet", "alpha": 1}, {"kind": "label-proportions", "level": "mild"}]
)
def test_rows_without_labels_cannot_be_dealt_by_label(tmp_path: Path, partition: dict) -> None:
    config = written(
        tmp_path,
        opinions(60),
        columns={"label": None},
        partition=partition,
        objective="language-modeling",
        backbone={"name": "toy-lm"},
    )
    with pytest.raises(UserError, match=f"partition '{partition['kind']}' deals by label, and data set .* has none"):
        check_data(config, base=tmp_path)


def test_language_modeling_needs_no_labels(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("".join(words(i) + "\n\n" for i in range(60)))
    config = task_of(
        objective="language-modeling",
        backbone={"name": "toy-lm"},
        data={"source": {"text": {"path": "book.txt"}}, "test_rows": 20, "holdout_rows": 4},
        rows_per_client=4,
    )
    report = check_data(config, base=tmp_path, tokenizer=toy_lm_tokenizer())
    assert (report.used, report.labels, report.unheld, report.lines()) == (60, {}, {}, [])


@pytest.mark.parametrize(
    "source", ["sms-spam", "rotten-tomatoes", {"hub": {"dataset": "a/b", "split": "s", "text": "t", "label": "l"}}]
)
def test_what_is_not_on_this_machine_is_not_fetched_to_be_checked(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QLORABENCH_CACHE", str(tmp_path))
    report = check_data(task_of(data={"source": source}), base=HERE)
    assert report.unchecked
    assert report.lines() == [f"data not checked: {report.unchecked}"]
    assert list(tmp_path.iterdir()) == []


PLUGIN = """
from qlorabench.tasks.dataset import Table
from qlorabench.tasks.sources import Source

class Mine(Source):
    name, description = "mine", "a source of a user's"

    def load(self, *, base):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return {}['rows']", "data source 'mine' failed: KeyError: 'rows'"),
        ("return [('a', 0)]", "data source 'mine' gave a list; 'load' must return a Table"),
        ("return Table('mine', ('a',), (0,), ('x',))", "has one label alone; a classification needs two"),
    ],
)
def test_a_source_of_the_users_that_fails_is_one_message(body: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(body=body))
    with pytest.raises(UserError, match=re.escape(said)):
        check_data(task_of(data={"source": "mine.py:Mine"}), base=tmp_path)


# ---- the report


def test_nothing_is_said_where_every_row_is_used() -> None:
    report = check_data(task_of(), base=HERE, tokenizer=toy_tokenizer())
    assert report.lines() == []
    json.dumps(report.facts(), allow_nan=False)
    assert report.facts()["rows_by_label"] == {"bad": 298, "good": 302}


def test_dealing_is_the_same_for_the_report_and_for_the_run(tmp_path: Path) -> None:
    made = corpus(task_of(), HERE)
    report = deal_report(task_of(), made, seeds=(3,))
    assert report.got == {3: tuple(len(rows) for rows in deal(task_of(), made, seed=data_seed(3)).client_rows)}
