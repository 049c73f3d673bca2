"""Runs that hung, died or lost what they had: each ends as it should, and says why."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Invoke


def rows(folder: Path, **wanted: str) -> list[dict]:
    found = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


@pytest.mark.parametrize(("suite", "said"), [("usererror_hang.yaml", "epsilon"), ("dp_eps_1000.yaml", "epsilon")])
def test_targets_of_privacy_that_nobody_can_account_are_problems_of_the_suite(
    invoke: Invoke, suite: str, said: str
) -> None:
    for verb in ("check", "run"):
        done = invoke(verb, suite)
        assert done.returncode == 2
        assert said in done.stderr
        assert (
            re.search(r"(greater|less) than or equal to", done.stderr)
            or "at most" in done.stderr
            or ("at least" in done.stderr)
        )


def test_a_client_that_has_fitted_its_rows_does_not_lose_the_federation(invoke: Invoke, inputs: Path) -> None:
    """Such rates may diverge, which depends on the processor; then that is what is said, and not before it happens."""
    done = invoke("run", "zero_grad.yaml")
    assert "does not reach" not in done.stdout
    for row in rows(inputs / "runs/zero-grad"):
        assert row["status"] == "ok" or "local training diverged (client " in row["note"]
    mild = (inputs / "zero_grad.yaml").read_text().replace("[1, 20]", "1").replace("lr: 20,", "lr: 0.01,")
    (inputs / "mild.yaml").write_text(mild.replace("name: zero-grad", "name: mild"))
    done = invoke("run", "mild.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"plain: \d+ of 16 updates are zero \(client 0, 1\)", done.stdout)
    assert {row["status"] for row in rows(inputs / "runs/mild")} == {"ok"}


def test_an_error_that_reads_like_markup_is_text(invoke: Invoke, inputs: Path) -> None:
    done = invoke("run", "raises.yaml")
    assert done.returncode == 1
    note = "RuntimeError in raises.py:17 (run): cannot open any of [/data/model.bin] or [/cache]"
    assert done.stdout.count(f"failed: {note}") == 2
    failed = rows(inputs / "runs/raises", status="failed")
    assert [row["system"] for row in failed] == ["plain", "q"]
    for row in failed:
        kept = re.fullmatch(re.escape(note) + r" \(traceback: (errors/\w+\.txt)\)", row["note"])
        assert kept
        assert "Traceback" in (inputs / "runs/raises" / kept[1]).read_text()
    assert len(rows(inputs / "runs/raises", attack="calibrated-loss", metric="auc")) == 2
    again = invoke("run", "raises.yaml", "--debug")
    assert "Traceback (most recent call last)" in again.stdout


def test_classes_that_are_not_whole_are_problems_of_the_suite(invoke: Invoke, inputs: Path) -> None:
    text = (inputs / "t-wrong-claim.yaml").read_text()
    more = text.replace("attacks: [", "attacks: [label.py:LabelInference, label.py:NoRequires, ")
    (inputs / "more.yaml").write_text(more)
    done = invoke("check", "more.yaml")
    assert done.returncode == 2
    for said in (
        "'label.py:LabelInference' is not whole: its goal must be one of",
        "'label.py:NoRequires' is not whole: its 'requires' must be a set of Capability",
        "'label.py:NoName' is not whole: it has no name",
    ):
        assert said in done.stderr
    assert invoke("run", "t-wrong-claim.yaml").returncode == 2


MORE = """

class Quarrels(LabelInference2):
    name = "quarrels"

    def run(self, view, rng):
        from qlorabench.errors import UserError

        raise UserError("my own file is missing\\x1b[31m")


class Short(LabelInference2):
    name = "short"

    def run(self, view, rng):
        from qlorabench.threats.claims import MembershipClaim

        return MembershipClaim(np.zeros(3))


class Hides(LabelInference2):
    name = "hides"

    def run(self, view, rng):
        raise SystemExit(0)
"""


@pytest.fixture
def odd_attacks(inputs: Path) -> Path:
    """The suite of attacks that go wrong, with some more of them, in few rounds."""
    with (inputs / "label.py").open("a") as file:
        file.write(MORE)
    text = (inputs / "t-wrong-claim.yaml").read_text().replace("rounds: 12", "rounds: 2")
    path = inputs / "odd.yaml"
    path.write_text(text.partition("threats:")[0])
    return path


def test_what_an_attack_does_wrong_is_a_failed_cell_of_its_own(invoke: Invoke, inputs: Path, odd_attacks: Path) -> None:
    names = ("LabelInference2", "Raises", "NotGranted", "Quarrels", "Short", "Hides")
    attacks = ", ".join(f"label.py:{name}" for name in names)
    with odd_attacks.open("a") as file:
        file.write(f"threats: [server, end-user]\nattacks: [{attacks}, span]\n")
    done = invoke("run", "odd.yaml")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout.partition("wrong-claims / opinions")[0]
    out = inputs / "runs/wrong-claims"
    notes = {(row["threat"], row["attack"]): row["note"] for row in rows(out, status="failed")}
    wanted = {
        (
            "server",
            "LabelInference2",
        ): "LabelInference2.run: it returned a LabelClaim; an attack whose goal is membership",
        ("server", "Raises"): "RuntimeError in label.py:41 (run): my bug second line xxx",
        ("end-user", "NotGranted"): "NotGrantedError in label.py:58 (run): the end-user seat is not granted",
        ("server", "Quarrels"): "UserError in label.py:87 (run): my own file is missing",
        ("server", "Short"): "Short.run: its scores are of shape (3,); the view has ",
        ("server", "Hides"): "SystemExit in label.py:",
    }
    for (threat, attack), start in wanted.items():
        note = notes.pop((threat, f"label.py:{attack}"))
        assert note.startswith(start), note
    assert set(notes) <= {("server", "label.py:NotGranted")}
    assert {row["status"] for row in rows(out, attack="span")} == {"ok"}


def test_an_attack_that_ends_its_interpreter_is_a_failed_cell(inputs: Path, odd_attacks: Path) -> None:
    """In a worker process, which is lost twice."""
    with odd_attacks.open("a") as file:
        file.write("threats: [server]\nattacks: [label.py:Raises, label.py:Exits]\n")
    command = [sys.executable, "-c", "from qlorabench.cli import main; main()", "run", "odd.yaml", "--workers", "1"]
    done = subprocess.run(command, cwd=inputs, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "HELLO from attack" not in done.stdout + done.stderr
    out = inputs / "runs/wrong-claims"
    notes = {row["attack"]: row["note"] for row in rows(out, status="failed")}
    assert notes["label.py:Exits"].startswith("the worker process ended with exit code 3, on the second try too")
    kept = re.search(r"errors/\w+\.txt", notes["label.py:Raises"])
    assert kept
    assert "What it printed:\nHELLO from attack" in (out / kept[0]).read_text()


def test_a_run_with_nothing_left_to_do_loads_no_backbone(
    invoke: Invoke, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("run", "base.yaml").returncode == 0
    before = (inputs / "runs/base/records.jsonl").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("there is nothing to do")

    monkeypatch.setattr("qlorabench.tasks.backbones.load_backbone", refuse)
    monkeypatch.setattr("qlorabench.engines.run.Pool", refuse)
    done = invoke("run", "base.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (inputs / "runs/base/records.jsonl").read_bytes() == before
