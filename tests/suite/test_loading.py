"""What a suite file may hold, how large it may be, and that every problem is told at once."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qlorabench.errors import SuiteError, UserError
from qlorabench.suite.loading import MOST_BYTES, find_suite, load_suite
from qlorabench.suite.plan import make_plan, select

BASE = """\
name: base
tasks:
  t:
    backbone: {name: toy}
    data: {source: toy, max_length: 12, test_rows: 40, holdout_rows: 40}
    clients: 2
    rows_per_client: [8, 20]
systems:
  plain: {}
  q: {defenses: [quantized-broadcast: {bits: 4}]}
threats: [server]
attacks: [calibrated-loss]
"""


@pytest.fixture
def load(tmp_path: Path):
    def call(text: str | bytes):
        path = tmp_path / "suite.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_suite(path)

    return call


@pytest.fixture
def refused(load):
    """What is said of a suite that is refused, by place."""

    def call(text: str | bytes) -> dict[str, str]:
        with pytest.raises(SuiteError) as caught:
            load(text)
        assert len(str(caught.value).splitlines()) < 30
        return {problem.path: problem.message for problem in caught.value.problems}

    return call


def test_problems_of_shape_reference_and_conflict_are_told_together(refused) -> None:
    text = BASE.replace("clients: 2", "clients: 2\n    lora: {rank: 0}\n    training: {rounds: none}")
    text = text.replace("[calibrated-loss]", "[calibrated-loss, calibrated-los, calibrated-loss]")
    text = text.replace("threats: [server]", "threats: [server, sever, colluding-clients: {k: 5}]")
    text = text.replace("  plain: {}\n", "  plain: {}\n  two: {defenses: [frozen-a, frozen-a]}\n  no: {defences: []}\n")
    assert set(refused(text)) == {
        "tasks.t.lora.rank", "tasks.t.training.rounds", "attacks[1]", "attacks[2]", "threats[1]", "threats[2]",
        "systems.two.defenses[1]", "systems.no.defences",
    }  # fmt: skip


def test_a_system_that_is_wrong_on_two_tasks_is_told_once(refused) -> None:
    task = BASE[BASE.index("    backbone") : BASE.index("systems:")]
    text = BASE.replace("systems:\n", f"  u:\n{task}systems:\n")
    found = refused(text.replace("  q: {", "  q: {override: {lora: {rank: 0}}, ").replace("bits: 4", "bits: 9"))
    assert set(found) == {"systems.q.override.lora.rank", "systems.q.defenses[0].quantized-broadcast.bits"}


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("name: base\n", "name: base\nseeds: [0, 1, 0]\n", "seeds", "0 is listed twice, at places 0 and 2"),
        ("[server]", "[server, client, server: {}]", "threats[2]", "threats[0]"),
        ("[server]", "[client, colluding-clients: {k: 1}]", "threats[1]", "'client'"),
        ("[calibrated-loss]", "[calibrated-loss, calibrated-loss: {broadcasts: 2}]", "attacks[1]", "same options"),
        ("clients: 2", "clients: 2\n    lora: {targets: [query, key, query]}", "tasks.t.lora.targets", "query"),
    ],
)  # fmt: skip
def test_what_is_asked_for_twice_is_refused_with_both_places(refused, old, new, place, said) -> None:
    assert said in refused(BASE.replace(old, new))[place]


def test_one_attack_with_two_configs_stays_two(load) -> None:
    suite = load(BASE.replace("[calibrated-loss]", "[calibrated-loss, calibrated-loss: {broadcasts: 3}]"))
    assert [attack.label for attack in suite.attacks] == ["calibrated-loss", "calibrated-loss#2"]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("name: base\n", f"name: base\nseeds: [{2**63}]\n", "seeds[0]"),
        ("name: base\n", f"name: base\nseeds: {list(range(20_000))}\n", "seeds"),
        ("name: base\n", "name: base\nattack_seconds: 1e308\n", "attack_seconds"),
        ("name: base\n", "name: base\nattack_seconds: .inf\n", "attack_seconds"),
        ("name: base\n", "name: base\nattack_seconds: .nan\n", "attack_seconds"),
        ("clients: 2", f"clients: {10**30}", "tasks.t.clients"),
        ("clients: 2", "clients: 2\n    training: {local_steps: 1" + "0" * 30 + "}", "tasks.t.training.local_steps"),
        ("clients: 2", "clients: 2\n    training: {local_steps: 0x" + "f" * 9000 + "}", "tasks.t.training.local_steps"),
        ("clients: 2", "clients: 2\n    training: {optimizer: {lr: .inf}}", "tasks.t.training.optimizer.lr"),
        ("[8, 20]", f"{10**30}", "tasks.t"),
        ("[calibrated-loss]", "[attention-words: {above: .inf}]", "attacks[0].attention-words.above"),
        ("bits: 4}]", "bits: 4}, dp-sgd: {clip_norm: .inf}]", "systems.q.defenses[1].dp-sgd.clip_norm"),
        ("[server]", "[colluding-clients: {k: true}]", "threats[0]"),
        ("[server]", f"[colluding-clients: {{k: {10**40}}}]", "threats[0]"),
        ("{source: toy,", f"{{source: {{toy: {{rows: {10**40}}}}},", "tasks.t.data.source.toy.rows"),
    ],
)
def test_numbers_beyond_reason_are_refused_in_their_place(refused, old, new, place) -> None:
    assert list(refused(BASE.replace(old, new, 1))) == [place]


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + BOMB, "too large"),
        (BASE + MERGES, "too large"),
        (BASE + "deep: " + "[" * 80 + "]" * 80, "nested too deeply"),
        (BASE + "deep: " + "[" * 20_000, "nested too deeply"),
        (BASE + "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 90)), "nested too deeply"),
        (BASE + 'description: "\\ud800"\n', "surrogate"),
        (BASE + '"\\udfff": 1\n', "surrogate"),
        (BASE.replace("clients", "clients\0"), "not allowed in YAML"),
        (BASE.replace("    clients", "\tclients"), "tab"),
        ("", "empty"),
    ],
)
def test_files_that_no_suite_is_are_refused_in_one_line(refused, text: str, said: str) -> None:
    start = time.monotonic()
    assert said in next(iter(refused(text).values()))
    assert time.monotonic() - start < 60


def test_thousands_of_problems_are_counted_and_the_first_ones_listed(load) -> None:
    with pytest.raises(SuiteError) as caught:
        load(BASE + "".join(f"key{i}: {i}\n" for i in range(5000)))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("5000 problems")
    assert len(lines) == 22
    assert lines[-1] == "  and 4980 more"


def test_a_long_value_or_key_makes_no_long_message(load) -> None:
    for text in (BASE.replace("source: toy", f"source: {'x' * 100_000}"), BASE + f"{'k' * 900} z: 1\n"):
        with pytest.raises(SuiteError) as caught:
            load(text)
        assert len(str(caught.value)) < 1200


def test_bytes_that_are_no_text_are_told_with_their_line(load) -> None:
    with pytest.raises(UserError, match=r"not UTF-8 text: byte 0xff in line 2"):
        load(b"name: x\n\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        load(BASE.encode("utf-16"))


def test_a_byte_order_mark_is_skipped(load) -> None:
    assert load(b"\xef\xbb\xbf" + BASE.encode()).config.name == "base"


def test_a_file_that_is_too_large_is_not_read(load) -> None:
    with pytest.raises(UserError, match="larger than"):
        load(BASE + "#" * MOST_BYTES)


def test_more_cells_than_can_be_run_are_refused(refused) -> None:
    systems = "".join(f"  s{i}: {{override: {{lora: {{rank: {1 + i % 64}}}}}}}\n" for i in range(150))
    text = BASE.replace("name: base\n", f"name: base\nseeds: {list(range(400))}\n")
    assert "cells; at most" in refused(text.replace("  plain: {}\n", f"  plain: {{}}\n{systems}"))[""]


@pytest.mark.parametrize("name", ["", ".", "x" * 5000, "a/" * 3000, "/dev/null", "nul\0", "\udcff", "quickstart/"])
def test_names_that_are_no_suite_are_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "quickstart/":
        (tmp_path / "quickstart").mkdir()
        name = f"{tmp_path}/quickstart"
    with pytest.raises(UserError) as caught:
        find_suite(name)
    assert len(str(caught.value)) < 600


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="no regular file"):
        find_suite(str(tmp_path / "pipe.yaml"))


def test_only_takes_paths_and_parts_of_them_and_says_what_is_near(load) -> None:
    plan = make_plan(load(BASE))
    assert len(select(plan, None)) == len(plan.cells)
    assert {cell.label for cell in select(plan, "*/server/*")} == {
        "t/plain/seed-0/server/calibrated-loss",
        "t/q/seed-0/server/calibrated-loss",
    }
    assert [cell.label for cell in select(plan, "q/seed-0/util")] == ["t/q/seed-0/utility"]
    for pattern in ("t/plane/seed-0/server/*", "", "[", "x" * 5000):
        with pytest.raises(UserError, match="matches none of the 6 cells") as caught:
            select(plan, pattern)
        assert "t/plain/seed-0" in str(caught.value)
        assert len(str(caught.value)) < 800
    leak = next(cell for cell in plan.cells if cell.attack)
    odd = replace(leak, attack=replace(leak.attack, label="x[1].py:A"))
    assert odd.matches("x[1].py"), "a label's own brackets are no pattern"


def test_plugins_that_are_no_plugins_are_told_and_those_that_fail_too(refused, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from qlorabench.federation.defense import Defense, DefenseConfig\n"
        "class NoConfig(Defense[DefenseConfig]):\n    name = 'n'\n"
        "class Fails(Defense[DefenseConfig]):\n    name = 'f'\n    Config = DefenseConfig\n"
        "    def conflict(self, others, *, optimizer):\n        raise RuntimeError('[/x] my \\x1b[31mbug')\n"
    )
    systems = "  a: {defenses: ['mine.py:NoConfig']}\n  b: {defenses: ['mine.py:Fails']}\n"
    found = refused(
        BASE.replace("  plain: {}\n", f"  plain: {{}}\n{systems}").replace("calibrated-loss", "mine.py:Fails")
    )
    assert "its Config" in found["systems.a.defenses[0]"]
    assert "RuntimeError" in found["systems.b.defenses"]
    assert "is no Attack" in found["attacks[0]"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("rate: float = Field(default=float('nan'), allow_inf_nan=True)", "ValueError"),
        ("what: object = object()", "PydanticSerializationError"),
        (
            "n: int = 1\n    @field_validator('n', mode='before')\n    @classmethod\n    def f(cls, v):\n        1 / 0",
            "Zero",
        ),
    ],
)
def test_a_config_that_fails_is_told_at_its_place(refused, tmp_path: Path, field: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(
        "from pydantic import Field, field_validator\nfrom qlorabench.threats.attack import Attack, AttackConfig\n"
        "from qlorabench.threats.claims import Goal\n"
        f"class Config(AttackConfig):\n    {field}\nclass Mine(Attack[Config]):\n    Config = Config\n"
        "    name, goal, requires = 'mine', Goal.MEMBERSHIP, frozenset()\n    def run(self, view, rng): ...\n"
    )
    found = refused(
        BASE.replace("[calibrated-loss]", "['mine.py:Mine': {n: 1}]" if said == "Zero" else "['mine.py:Mine']")
    )
    (message,) = found.values()
    assert said in message
