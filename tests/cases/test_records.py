"""A folder of results says what the present plan says, whatever else lies in it."""

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from .conftest import Invoke

OUT = Path("runs/base")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the folder of one run is kept for the tests that change its journal."""
    return tmp_path_factory.mktemp("kept") / "base"


@pytest.fixture
def base_run(invoke: Invoke, kept: Path) -> Path:
    """The folder of a run of base.yaml."""
    if kept.exists():
        shutil.copytree(kept, OUT)
    else:
        run(invoke, "base.yaml")
        shutil.copytree(OUT, kept)
    return OUT


def write(to: str, **changes: tuple[str, str]) -> Path:
    """A suite like base.yaml with some words replaced."""
    text = Path("base.yaml").read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    Path(to).write_text(text)
    return Path(to)


def run(invoke: Invoke, suite: str | Path, *words: str, out: Path = OUT) -> str:
    done = invoke("run", suite, "--out", out, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def board(invoke: Invoke, *folders: Path, format: str = "json") -> Any:
    done = invoke("leaderboard", *folders, "--format", format)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if format == "json" else done.stdout


def rows_of(found: dict[str, Any]) -> dict[str, Any]:
    (task,) = found["tasks"]
    return {row["system"]: row for row in task["rows"]}


def test_the_third_run_of_one_folder_shows_what_the_first_did(invoke: Invoke) -> None:
    run(invoke, "base.yaml")
    first = board(invoke, OUT)
    run(invoke, "base_other.yaml")
    other = board(invoke, OUT)
    assert rows_of(other) != rows_of(first)
    assert other["notes"] == [f"6 cells of other configurations lie in {OUT} and are not shown."]
    said = run(invoke, "base.yaml")
    third = board(invoke, OUT)
    assert rows_of(third) == rows_of(first)
    assert "6 cells of other configurations lie in runs/base and are not shown." in said
    assert third["notes"] == other["notes"]


def test_what_left_the_suite_leaves_the_board(invoke: Invoke) -> None:
    run(invoke, write("wide.yaml", seeds=("threats:", "seeds: [0, 1]\nthreats:"), attacks=("[cal", "[span, cal")))
    run(invoke, write("renamed.yaml", system=("  q: {", "  quantized: {")))
    rows = rows_of(found := board(invoke, OUT))
    assert list(rows) == ["plain", "quantized"]
    assert found["tasks"][0]["seeds"] == [0]
    for row in rows.values():
        assert row["utility_server"]["state"] == "measured"
        assert row["leaks"]["reconstruction"]["cells"] == {}
        assert sum(row["leaks"]["membership"]["cells"].values()) == 1
    details = invoke("leaderboard", OUT, "--details").stdout
    assert "span" not in details
    assert "seed 1" not in details


def test_a_renamed_suite_is_another_suite(invoke: Invoke) -> None:
    run(invoke, "base.yaml")
    run(invoke, write("again.yaml", name=("name: base", "name: again")))
    assert [task["suite"] for task in board(invoke, OUT)["tasks"]] == ["again"]


def test_cells_that_were_not_chosen_are_not_run_yet(invoke: Invoke) -> None:
    run(invoke, "base.yaml", "--only", "*plain*")
    rows = rows_of(board(invoke, OUT))
    assert rows["q"]["utility_server"]["state"] == "not run"
    assert rows["q"]["leaks"]["membership"]["cells"] == {"not run": 1}
    assert rows["plain"]["utility_server"]["state"] == "measured"


def test_folders_of_two_configurations_stand_apart(invoke: Invoke) -> None:
    run(invoke, "base.yaml")
    run(invoke, "base_other.yaml", out=Path("runs/other"))
    found = board(invoke, OUT, Path("runs/other"))
    assert [task["folder"] for task in found["tasks"]] == ["runs/base", "runs/other"]
    assert [task["rows"] for task in found["tasks"]] == [
        board(invoke, folder)["tasks"][0]["rows"] for folder in (OUT, Path("runs/other"))
    ]
    assert "base / t, 1 seed, dropout off, in runs/other" in board(invoke, OUT, Path("runs/other"), format="table")


def test_folders_of_one_plan_are_taken_together(invoke: Invoke) -> None:
    run(invoke, "base.yaml", "--only", "*plain*")
    run(invoke, "base.yaml", "--only", "*/q/*", out=Path("runs/rest"))
    run(invoke, "base.yaml", out=Path("runs/whole"))
    found = board(invoke, OUT, Path("runs/rest"))
    assert [task["folder"] for task in found["tasks"]] == [None]
    assert found["tasks"] == board(invoke, Path("runs/whole"))["tasks"]


@pytest.mark.parametrize("first", ["*private*", "*plain*"])
def test_validated_is_found_when_the_folder_is_read(invoke: Invoke, inputs: Path, first: str) -> None:
    # of the four texts of the smaller client span alone leaves it to chance whether the twin leaks
    suite = inputs / "resume_only.yaml"
    suite.write_text(suite.read_text().replace("attacks: [span]", "attacks: [candidate-test]"))
    out = Path("runs/resumed")
    run(invoke, "resume_only.yaml", "--only", first, out=out)
    if first == "*private*":
        assert rows_of(board(invoke, out))["private"]["leaks"]["verification"]["validated"] is False
    run(invoke, "resume_only.yaml", out=out)
    whole = Path("runs/whole")
    run(invoke, "resume_only.yaml", out=whole)
    assert board(invoke, out)["tasks"] == board(invoke, whole)["tasks"]
    leak = rows_of(board(invoke, out))["private"]["leaks"]["verification"]
    assert (leak["state"], leak["validated"]) == ("measured", True)
    (line,) = [r for r in csv.DictReader(io.StringIO(board(invoke, out, format="csv"))) if r["system"] == "private"]
    assert line["verification_validated"] == "True"
    rows = [json.loads(text) for text in (out / "records.jsonl").read_text().splitlines()]
    assert {row["validated"] for row in rows if row["kind"] == "leakage"} == {None}


def test_a_folder_without_a_plan_is_read_and_says_so(invoke: Invoke, inputs: Path) -> None:
    results = inputs / "old"
    shutil.copytree(Path(__file__).parents[2] / "results" / "quickstart", results)
    (results / "plan.json").unlink(missing_ok=True)
    found = board(invoke, results)
    assert found["tasks"][0]["rows"]
    assert found["notes"] == [
        f"{results} has no plan.json, so the latest rows of each cell are shown, whatever configuration they are of."
    ]


def test_a_damaged_plan_is_told_and_written_anew(invoke: Invoke) -> None:
    run(invoke, "base.yaml")
    first = board(invoke, OUT)
    plan = OUT / "plan.json"
    for damaged in (plan.read_bytes().replace(b'"seed": 0', b'"seed": 1', 1), b"[" * 100_000, b"\xff", b""):
        plan.write_bytes(damaged)
        done = invoke("leaderboard", OUT)
        assert done.returncode == 2
        assert "runs/base/plan.json is damaged" in done.stderr
    run(invoke, "base.yaml")
    assert board(invoke, OUT) == first


def test_a_row_that_is_missing_is_missed(invoke: Invoke) -> None:
    run(invoke, "base.yaml")
    journal = OUT / "records.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for lost in (0, 1, 5):
        journal.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
        for command in (("leaderboard", OUT), ("run", "base.yaml", "--out", OUT)):
            done = invoke(*command)
            assert done.returncode == 2
            assert f"records.jsonl, line {lost + 1}: " in done.stderr
            assert "not complete" in done.stderr


def test_a_cell_that_is_missing_is_measured_again(invoke: Invoke) -> None:
    run(invoke, "base.yaml")
    first = board(invoke, OUT)
    journal = OUT / "records.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    key = json.loads(lines[0])["key"]
    journal.write_text("".join(line for line in lines if key not in line))
    assert rows_of(board(invoke, OUT))["plain"]["utility_server"]["state"] == "not run"
    run(invoke, "base.yaml")
    assert board(invoke, OUT) == first


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("transcripts/*/public.json", "bandwidth"),
        ("transcripts/*/index.jsonl", "bandwidth"),
        ("secrets/*/rounds.jsonl", "utility"),
        ("secrets/*/server/0002.safetensors", "utility"),
    ],
)
def test_a_flipped_byte_of_a_federation_is_told_and_mended(invoke: Invoke, file: str, kind: str) -> None:
    run(invoke, "base.yaml")
    first = board(invoke, OUT)
    journal = OUT / "records.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if json.loads(line)["kind"] != kind))
    path = min(OUT.glob(file))
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    done = invoke("run", "base.yaml", "--out", OUT)
    assert done.returncode == 2
    assert "is damaged at" in done.stderr
    assert "Remove that folder" in done.stderr
    for part in ("transcripts", "secrets"):
        shutil.rmtree(OUT / part / path.relative_to(OUT).parts[1])
    run(invoke, "base.yaml")
    assert board(invoke, OUT) == first


def swap(old: str, new: str) -> Any:
    return lambda line: line.replace(old, new)


def resealed(**fields: Any) -> Any:
    """A line with other numbers, as a program writes that is not ours: without rows and seal, as older journals are."""

    def change(line: str) -> str:
        row = {**json.loads(line), **fields}
        return json.dumps({name: value for name, value in row.items() if name not in ("rows", "seal")})

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap('"leakage":0.', '"leakage":7.'), "leakage: "),
        (swap('"headline":true', '"headline":false'), "its seal does not fit"),
        (swap('"n":', '"n":-'), "n: "),
        (swap('"threat":"server"', '"threat":"nobody"'), "its seal does not fit"),
        (swap('"seed":0', '"seed":0.5'), "seed: "),
        (resealed(leakage=7.5), "leakage: .*less than or equal to 1, found 7.5"),
        (resealed(value=float("nan")), "NaN is no number of JSON"),
        (resealed(leakage_low=0.9, leakage_high=0.1), "leakage_low: 0.9 is above the other end, 0.1"),
        (resealed(kind="rumour"), "kind: "),
        (resealed(goal="glory"), "goal: 'glory' is none of reconstruction"),
        (resealed(attack=None), "threat, attack and goal"),
        (resealed(seconds=-1.0), "seconds: "),
        (resealed(headline="yes"), "headline: "),
        (lambda line: "[" * 100_000, "nested too deeply"),
        (lambda line: line[:40] + "\x00" + line[40:], "not a JSON object"),
    ],
)  # fmt: skip
def test_a_damaged_line_of_the_journal_is_told_with_its_number(
    invoke: Invoke, base_run: Path, change: Any, said: str
) -> None:
    journal = base_run / "records.jsonl"
    lines = journal.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if '"metric":"auc"' in line)
    changed = change(lines[number])
    assert changed != lines[number]
    journal.write_text("\n".join([*lines[:number], changed, *lines[number + 1 :]]) + "\n")
    done = invoke("leaderboard", journal.parent)
    assert done.returncode == 2
    assert re.search(rf"records\.jsonl, line {number + 1}: .*{said}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_journal_that_is_no_text_is_told(invoke: Invoke, base_run: Path) -> None:
    journal = base_run / "records.jsonl"
    journal.write_bytes(b"\xff\xfe\n" + journal.read_bytes())
    done = invoke("leaderboard", journal.parent)
    assert (done.returncode, "line 1: not a JSON object" in done.stderr) == (2, True)


def test_another_seat_than_the_planned_one_is_told(invoke: Invoke, base_run: Path) -> None:
    """Rows of a block agree with each other, and not with the plan."""
    journal = base_run / "records.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    number = next(i for i, row in enumerate(lines) if row["threat"])
    block = [row for row in lines if row["key"] == lines[number]["key"]]
    for row in block:
        row["threat"] = "nobody"
        del row["rows"], row["seal"]
    journal.write_text("".join(json.dumps(row) + "\n" for row in lines))
    done = invoke("leaderboard", journal.parent)
    assert done.returncode == 2
    assert f"line {number + 1}: threat: 'nobody', where plan.json has 'server'" in done.stderr
