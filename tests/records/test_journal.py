import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlorabench.errors import UserError
from qlorabench.records.board import GOALS
from qlorabench.records.journal import Journal, latest
from qlorabench.records.record import Record
from qlorabench.threats.claims import Goal
from tests.records.rows import leak, lost, record

BLOCKS = [
    [record(), record(metric="accuracy_client"), record(metric="epsilon", value=None)],
    [record(kind="bandwidth", metric="bytes_total", value=12.0, note='naïve "quoted"\nnote')],
    [leak(0.4, 0.1, 0.6), leak(0.2, 0.0, 0.5, metric="tpr_at_1pct_fpr", headline=False)],
    [lost("failed", attack="span")],
]


def write(path, blocks=BLOCKS):
    journal = Journal(path)
    for block in blocks:
        journal.append(block)
    return journal


def test_what_was_appended_is_read(tmp_path):
    journal = write(tmp_path / "deep" / "records.jsonl")
    assert journal.read() == [row for block in BLOCKS for row in block]


def test_rows_are_flat_objects_with_the_fields_of_a_record(tmp_path):
    lines = write(tmp_path / "j").path.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row.pop("rows_left") for row in rows] == [2, 1, 0, 0, 1, 0, 0]
    assert [row.pop("rows") for row in rows] == [3, 3, 3, 1, 2, 2, 1]
    assert len({row.pop("seal") for row in rows}) == len(rows)
    assert rows == [row.to_json() for block in BLOCKS for row in block]


def test_rows_of_before_costs_were_measured_are_read(tmp_path):
    journal = write(tmp_path / "j")
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    older = [{name: value for name, value in line.items() if name != "peak_bytes"} for line in lines]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert journal.read() == [row for block in BLOCKS for row in block]


def test_the_reference_results_are_read():
    for path in (Path(__file__).parents[2] / "results").glob("*/records.jsonl"):
        assert Journal(path).read()


def test_no_file_is_an_empty_journal(tmp_path):
    journal = Journal(tmp_path / "none")
    assert (journal.read(), journal.finished_keys(), journal.recover()) == ([], set(), 0)
    assert not journal.path.exists()


def test_every_cut_leaves_whole_blocks_and_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    whole = write(tmp_path / "whole").path.read_bytes()
    ends = [0]
    for i in range(len(BLOCKS)):
        ends.append(len(write(tmp_path / f"{i}", BLOCKS[: i + 1]).path.read_bytes()))
    for cut in range(len(whole) + 1):
        journal = Journal(tmp_path / "cut")
        journal.path.write_bytes(whole[:cut])
        kept = max(i for i, end in enumerate(ends) if end <= cut)
        assert journal.read() == [row for block in BLOCKS[:kept] for row in block]
        assert journal.path.stat().st_size == cut, "reading leaves the file alone"
        assert journal.recover() == cut - ends[kept]
        assert journal.path.read_bytes() == whole[: ends[kept]]
        assert journal.recover() == 0
    line_ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in {*line_ends, *range(0, len(whole), 97)}:
        journal.path.write_bytes(whole[:cut])
        done = {row.key for row in journal.read()}
        for block in BLOCKS:
            if block[0].key not in done:
                journal.append(block)
        assert journal.path.read_bytes() == whole


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
def test_appending_after_any_cut_recovers_first(tmp_path_factory, sizes, data):
    path = tmp_path_factory.mktemp("j") / "records.jsonl"
    blocks = [[record(seed=i, metric=f"m{j}") for j in range(size)] for i, size in enumerate(sizes)]
    whole = write(path, blocks).path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    kept = Journal(path).read()
    Journal(path).append([record(seed=99)])
    assert Journal(path).read() == [*kept, record(seed=99)]


def test_finished_are_ok_and_unsupported_by_their_last_try(tmp_path):
    again = lost("failed", attack="again")
    spoilt = lost("timeout", attack="spoilt")
    blocks = [
        [record()],
        [lost("unsupported", attack="blind")],
        [lost("failed", attack="broken")],
        [again],
        [leak(0.1, attack="again")],
        [leak(0.1, attack="spoilt")],
        [spoilt],
    ]
    finished = write(tmp_path / "j", blocks).finished_keys()
    assert finished == {record().key, blocks[1][0].key, again.key}


@pytest.mark.parametrize(
    ("damage", "line", "says"),
    [
        (lambda lines: [lines[0], "{nonsense", *lines[2:]], 2, "not a JSON object"),
        (lambda lines: [lines[0], "[1]", *lines[2:]], 2, "not a JSON object"),
        (lambda lines: [lines[0].replace('"ok"', '"fine"'), *lines[1:]], 1, "status"),
        (lambda lines: [lines[0].replace('"task"', '"tsak"'), *lines[1:]], 1, "task, tsak"),
        (lambda lines: [lines[0].replace("0.8", '"much"'), *lines[1:]], 1, "value"),
        (lambda lines: [lines[0].replace('"rows_left":2', '"rows_left":-1'), *lines[1:]], 1, "rows_left"),
        (lambda lines: [lines[0].replace(',"rows_left":2', ""), *lines[1:]], 1, "rows_left"),
        (lambda lines: lines[:1] + lines[2:], 2, "not complete"),
        (lambda lines: lines[:2] + lines[3:], 3, "not complete"),
    ],
)
def test_damage_in_the_middle_names_file_and_line_and_mend(tmp_path, damage, line, says):
    journal = write(tmp_path / "records.jsonl")
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join(damage(lines)) + "\n")
    with pytest.raises(UserError, match=rf"records\.jsonl, line {line}: .*{says}.*delete every line"):
        journal.read()


def test_deleting_the_lines_of_a_cell_mends(tmp_path):
    journal = write(tmp_path / "j")
    key = BLOCKS[0][0].key
    lines = [line for line in journal.path.read_text().splitlines(True) if key not in line]
    journal.path.write_text("".join(lines))
    assert key not in journal.finished_keys()
    journal.append(BLOCKS[0])
    assert key in journal.finished_keys()


@pytest.mark.parametrize(
    "block",
    [[], [record(), record(seed=1, metric="b")], [record(), record(metric="b", status="failed")], [record(), record()]],
)
def test_a_block_is_one_try_of_one_cell(tmp_path, block):
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="block"):
        journal.append(block)
    assert not journal.path.exists()


def test_numbers_that_json_has_not_are_missing_with_the_reason(tmp_path):
    row = record(value=float("inf"), low=float("nan"), note="no noise")
    assert write(tmp_path / "j", [[row]]).read() == [
        record(value=None, low=None, note="no noise; value is inf; low is nan")
    ]


def test_latest_is_the_last_try_at_the_place_of_the_first():
    first, other, second = lost("failed"), record(), leak(0.2)
    assert latest([first, other, second]) == [second, other]
    assert latest([first, lost("failed", note="again"), other]) == [lost("failed", note="again"), other]


def test_latest_of_a_former_configuration_is_gone():
    old = [leak(0.2, key="old"), leak(0.1, key="old", metric="advantage")]
    new = [leak(0.3, key="new")]
    assert latest(old + new) == new


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["ok", "failed"]), st.integers(0, 9)), max_size=12))
def test_latest_agrees_with_a_naive_loop(tries):
    blocks = [
        [replace(record(seed=seed, metric=m), status=status, value=float(value)) for m in ("a", "b")]
        for seed, status, value in tries
    ]
    order = list(dict.fromkeys(seed for seed, _, _ in tries))
    naive: list[Record] = []
    for seed in order:
        naive += [block for block in blocks if block[0].seed == seed][-1]
    assert latest(row for block in blocks for row in block) == naive


def test_appending_reads_the_end_alone(tmp_path):
    """A long journal costs no more to append to than a short one: what lies before its last block is not read."""
    journal = Journal(tmp_path / "j")
    block = [record(metric=f"m{i}", note="x" * 200) for i in range(10)]
    for seed in range(40):
        journal.append([replace(row, seed=seed, key=f"k{seed}") for row in block])
    data = journal.path.read_bytes()
    journal.path.write_bytes(b"\xff" * 1000 + data[1000:])
    journal.append([record(seed=99)])
    assert journal.path.read_bytes().startswith(b"\xff" * 1000)
    journal.path.write_bytes(data)
    assert len(journal.read()) == 400


def test_a_block_longer_than_the_end_that_is_read_first_is_cut_whole(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append([record()])
    whole = journal.path.read_bytes()
    journal.append([record(seed=1, metric=f"m{i}", note="x" * 2000) for i in range(200)])
    journal.path.write_bytes(journal.path.read_bytes()[:-10])
    assert journal.recover() > 64 * 1024
    assert journal.path.read_bytes() == whole


def test_damage_at_the_end_names_its_line_before_anything_is_cut(tmp_path):
    journal = write(tmp_path / "records.jsonl")
    data = journal.path.read_bytes()
    journal.path.write_bytes(data + b"{nonsense\n")
    number = len(data.splitlines()) + 1
    with pytest.raises(UserError, match=f"line {number}: not a JSON object"):
        journal.append([record(seed=9)])
    assert journal.path.read_bytes() == data + b"{nonsense\n"


@pytest.mark.parametrize(
    "row",
    [leak(7.5), leak(0.5, 0.9, 0.1), record(n=-1), record(seed=-1), leak(0.5, goal="glory"), record(threat="server")],
)
def test_a_row_that_could_not_be_read_again_is_not_written(tmp_path, row):
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match=r"^(leakage|leakage_low|n|seed|goal): |^threat, attack"):
        journal.append([row])
    assert not journal.path.exists()


def test_characters_that_no_file_holds_are_replaced(tmp_path):
    assert write(tmp_path / "j", [[record(note="cut \ud800 here")]]).read() == [record(note="cut ? here")]


def test_seals_do_not_depend_on_what_a_cell_cost(tmp_path):
    """Journals of two runs differ in seconds and memory alone."""
    one, two = (
        write(tmp_path / name, [[record(seconds=seconds, peak_bytes=peak)]])
        for name, seconds, peak in (("a", 1.0, 10), ("b", 2.0, None))
    )
    seals = [json.loads(journal.path.read_text())["seal"] for journal in (one, two)]
    assert seals[0] == seals[1]


def test_goals_are_those_of_attacks():
    assert set(GOALS) == {goal.value for goal in Goal}
