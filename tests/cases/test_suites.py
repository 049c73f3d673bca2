"""Suites that went wrong for users, as they are checked and run on the command line."""

import json
import re
from pathlib import Path

import pytest

from .conftest import Invoke


def suite(folder: Path, name: str, *edits: tuple[str, str], base: str = "base.yaml") -> Path:
    """Write a case with some text replaced, and return its file."""
    text = (folder / base).read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return folder / name


def refused(done) -> list[str]:
    """The lines of the one message of a command that was refused."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 60
    return lines


def test_a_seed_and_a_seat_twice_are_refused_with_their_places(invoke: Invoke, inputs: Path) -> None:
    for verb in ("check", "run"):
        said = "\n".join(refused(invoke(verb, "dup_seeds.yaml")))
        assert "seeds (line 2): 0 is listed twice" in said
        assert "threats[1] (line 15): the seat stands at threats[0]" in said
    assert not (inputs / "runs").exists()


def test_a_misspelt_target_is_told_by_check_with_the_layers_there_are(invoke: Invoke) -> None:
    (said,) = refused(invoke("check", "target_typo.yaml"))[1:]
    assert "tasks.t.lora.targets[1] (line 8)" in said
    assert "'keey'" in said
    assert "Did you mean 'key'?" in said


def test_a_target_of_a_system_alone_is_told_at_the_system(invoke: Invoke, inputs: Path) -> None:
    edit = ("  q: {", "  q: {override: {lora: {targets: [query, valeu]}}, ")
    (said,) = refused(invoke("check", suite(inputs, "own.yaml", edit)))[1:]
    assert "systems.q.override.lora.targets[1]" in said


def test_check_tells_data_that_run_would_refuse_with_all_else_that_is_wrong(invoke: Invoke, inputs: Path) -> None:
    path = suite(
        inputs,
        "many.yaml",
        ("name: base", "name: many\nattack_seconds: .inf"),
        (
            "source: toy, max_length: 12",
            "source: {csv: {path: same_head.csv, text: txet, label: label}}, max_length: 48",
        ),
        ("[query, key, value]", "[query, keey]"),
        ("bits: 4", "bits: 40"),
        ("[calibrated-loss]", "[calibrated-loss, calibrated-lss, 'gone.py:Attack']"),
    )
    said = "\n".join(refused(invoke("check", path)))
    for place in (
        "attack_seconds", "tasks.t.data.source", "tasks.t.data.max_length", "tasks.t.lora.targets[1]",
        "systems.q.defenses[0].quantized-broadcast.bits", "attacks[1]", "attacks[2]",
    ):  # fmt: skip
        assert f"  {place} (line " in said, said
    assert "txet" in said


@pytest.mark.parametrize(
    ("edit", "place", "word"),
    [
        (("[8, 20]", "[8, 2000]"), "tasks.t.rows_per_client", "600 rows"),
        (("clients: 2", "clients: 2\n    partition: {kind: column, column: film}"), "tasks.t.partition", "'film'"),
        (("max_length: 12", "max_length: 33"), "tasks.t.data.max_length", "32"),
        (("{name: toy}", "{name: nothing_here/x}"), "tasks.t.backbone", "nothing_here/x"),
    ],
)
def test_check_opens_data_and_the_configuration_unless_offline(invoke: Invoke, inputs: Path, edit, place, word) -> None:
    path = suite(inputs, "edited.yaml", edit)
    done = invoke("check", path)
    said = refused(done)[1]
    assert said.startswith(f"  {place} (line ")
    assert word in said
    assert invoke("check", path, "--offline").returncode == 0


def test_check_of_a_model_folder_names_its_layers(invoke: Invoke, inputs_with_models: Path) -> None:
    edits = (("{name: toy}", "{name: models/gpt2}"), ("[query, key, value]", "[c_attn]"))
    done = invoke("check", suite(inputs_with_models, "gpt2.yaml", *edits))
    assert done.returncode == 0, done.stderr
    assert "target 'c_attn': 2 x h.*.attn.c_attn" in done.stdout
    said = refused(invoke("check", suite(inputs_with_models, "gpt2.yaml", edits[0])))
    assert sum("targets[" in line for line in said) == 3


def test_a_pattern_that_matches_nothing_is_told_before_anything_is_loaded(invoke: Invoke, inputs: Path) -> None:
    said = "\n".join(refused(invoke("run", "base.yaml", "--only", "*/sevrer/*")))
    assert "Did you mean '*/server/*'?" in said
    assert "t/plain/seed-0/server/calibrated-loss" in said
    assert not (inputs / "runs").exists()


def test_details_for_programs_are_one_document(invoke: Invoke) -> None:
    import csv
    import io

    assert invoke("run", "base.yaml").returncode == 0
    rows = json.loads(invoke("leaderboard", "runs/base", "--details", "--format", "json").stdout)
    assert {row["kind"] for row in rows} == {"leakage"}
    table = list(csv.DictReader(io.StringIO(invoke("leaderboard", "runs/base", "--details", "--format", "csv").stdout)))
    assert len(table) == len(rows)
    page = invoke("leaderboard", "runs/base", "--details", "--format", "markdown").stdout
    assert page.count("### base / t") == 2
    assert "base / t" in invoke("leaderboard", "runs/base", "--details").stdout


HOSTILE = """\
from pydantic import Field
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal
class Mine(Attack[AttackConfig]):
    '''[bold]\\x1b[31mred\\u202e[/x]'''
    name = "[/x]\\x1b[2J"
    goal = Goal.MEMBERSHIP
    Config = AttackConfig
    requires = frozenset({Capability.CANDIDATES})
    def blind(self, facts):
        return "no [/data/x] \\x1b[2J\\u202e signal"
    def run(self, view, rng): ...
"""


def test_check_says_which_files_it_ran_and_prints_names_as_text_within_112_columns(
    invoke: Invoke, inputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "[red]outside[").mkdir()
    (tmp_path / "[red]outside[" / f"{'long' * 30}.py").write_text(HOSTILE)
    (inputs / "inside.py").write_text(HOSTILE)
    attacks = f"['../[red]outside[/{'long' * 30}.py:Mine', 'inside.py:Mine']"
    every = "[eavesdropper, client, server, server-secure-aggregation, malicious-server, end-user]"
    path = suite(inputs, "files.yaml", ("[calibrated-loss]", attacks), ("[server]", every))
    done = invoke("check", path)
    assert done.returncode == 0, done.stderr
    unbroken = re.sub(r"\s", "", done.stdout)  # lines break at different places for folders of different lengths
    assert unbroken.count("codethatwasrun:") == 2
    assert unbroken.count("outsideofthesuite'sfolder") == 1
    assert "[red]outside[" in unbroken
    assert "[/data/x]" in unbroken
    assert not re.search("[\x1b\u202e]", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 112


def test_check_of_many_seeds_is_short(invoke: Invoke, inputs: Path) -> None:
    done = invoke("check", suite(inputs, "seeds.yaml", ("name: base", f"name: base\nseeds: {list(range(500))}")))
    assert done.returncode == 0, done.stderr
    assert "1000 federations" in done.stdout
    assert "500 of them" in done.stdout
    assert len(done.stdout.splitlines()) < 40


def test_classes_that_lack_a_part_of_an_attack_are_told_at_once(invoke: Invoke, inputs: Path) -> None:
    names = "['label.py:NoName', 'label.py:NoRequires', 'label.py:LabelInference', calibrated-loss]"
    path = suite(inputs, "faulty.yaml", ("[calibrated-loss]", names))
    for verb in ("check", "run"):
        said = refused(invoke(verb, path))[1:]
        assert [line.split(" (")[0].strip() for line in said] == ["attacks[0]", "attacks[1]", "attacks[2]"]
        assert "'requires'" in said[1]
        assert "'labels'" in said[2]


def test_an_attack_that_cannot_be_asked_of_a_system_is_told_by_check(invoke: Invoke, inputs: Path) -> None:
    (inputs / "mine.py").write_text(HOSTILE.replace("return ", "raise RuntimeError(").replace('signal"', 'signal")'))
    said = refused(invoke("check", suite(inputs, "asked.yaml", ("[calibrated-loss]", "['mine.py:Mine']"))))[1:]
    assert "attacks (line" in said[0]
    assert "no [/data/x] \\x1b[2J\\u202e signal" in said[0]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "base.yaml", "--out", ""),
        ("run", "base.yaml", "--out", "x" * 5000),
        ("run", "base.yaml", "--out", "base.yaml"),
        ("run", "base.yaml", "--out", "base.yaml/below"),
        ("run", "base.yaml", "--out", "/dev/null/x"),
        ("run", "base.yaml", "--workers", "1000000000"),
        ("run", "base.yaml", "--workers", "0"),
        ("run", "base.yaml", "--workers", "many"),
        ("run", "base.yaml", "--only", ""),
        ("run", "base.yaml", "--only", "[" * 3000),
        ("run", "x" * 5000),
        ("run", "../" * 2000),
        ("check", ""),
        ("check", "."),
        ("check", "/dev/null"),
        ("check", "\udcff.yaml"),
        ("check", "[/red].yaml"),
        ("leaderboard", "base.yaml"),
        ("leaderboard", "x" * 5000),
        ("leaderboard", ""),
        ("leaderboard",),
        ("leaderboard", ".", "--format", "xml"),
        ("ls", "everything"),
        ("ls", ""),
        ("ls",),
        ("nothing",),
        ("check", "base.yaml", "--nothing"),
    ],
)
def test_odd_command_lines_are_refused_in_one_message(invoke: Invoke, inputs: Path, words: tuple[str, ...]) -> None:
    lines = refused(invoke(*words))
    assert len(lines) <= 20
    assert not (inputs / "records.jsonl").exists()
    assert not (inputs / "runs").exists()
