"""What a run promises: the same bytes twice, after a kill too, and no work that was done before."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import SUITE, qlorabench


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def timeless(out: Path) -> list[str]:
    return [json.dumps({k: v for k, v in row.items() if k not in ("seconds", "peak_bytes")}) for row in rows(out)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    (folder / "tiny.yaml").write_text(SUITE)
    done = qlorabench("run", "tiny.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "tiny"


def test_every_cell_of_the_plan_is_recorded(first: Path) -> None:
    cells = {(r["system"], r["kind"], r["threat"], r["attack"]) for r in rows(first)}
    seats = {
        ("server", "span"),
        ("server", "calibrated-loss"),
        ("client", "calibrated-loss"),
        ("client", "smoothing"),
        ("end-user", "calibrated-loss"),
    }
    for system in ("plain", "hardened"):
        assert (system, "utility", None, None) in cells
        assert (system, "bandwidth", None, None) in cells
        assert {(t, a) for s, k, t, a in cells if s == system and k == "leakage"} == seats
    assert {r["status"] for r in rows(first)} == {"ok"}


def test_epsilon_is_recorded_where_there_is_differential_privacy(first: Path) -> None:
    found = {r["system"]: r["value"] for r in rows(first) if r["metric"] == "epsilon"}
    assert set(found) == {"hardened"}
    assert 0 < found["hardened"] <= 8


def test_bytes_are_those_of_the_files(first: Path) -> None:
    for row in rows(first):
        if row["metric"] == "bytes_total" and row["system"] == "plain":
            break
    total = 0
    for folder in (first / "transcripts").iterdir():
        facts = json.loads((folder / "public.json").read_text())
        if facts["defenses"]:
            continue
        for line in (folder / "index.jsonl").read_text().splitlines():
            message = json.loads(line)
            size = (folder / "messages" / f"{message['sequence']:05d}.safetensors").stat().st_size
            total += size * (3 if message["direction"] == "down" else 1)
    assert row["value"] == total


def test_a_second_run_does_no_work_and_changes_nothing(first: Path) -> None:
    before = tree(first)
    done = qlorabench("run", "tiny.yaml", cwd=first.parents[1])
    assert done.returncode == 0, done.stderr
    assert {k: v for k, v in tree(first).items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }


def test_a_run_that_was_killed_ends_with_the_same_bytes(first: Path, suite: Path) -> None:
    command = [sys.executable, "-c", "from qlorabench.cli import main; main()", "run", "tiny.yaml", "--workers", "1"]
    out = suite.parent / "runs" / "tiny"
    process = subprocess.Popen(command, cwd=suite.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not list(out.glob("transcripts/*/messages/00006.safetensors")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(out.glob("transcripts/*/messages/00006.safetensors")), "killed before it had begun"
    assert len(timeless(out) if (out / "records.jsonl").exists() else []) < len(timeless(first))
    done = qlorabench("run", "tiny.yaml", cwd=suite.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert timeless(out) == timeless(first)
    for part in ("transcripts", "secrets"):
        assert tree(out / part) == tree(first / part)


def test_a_damaged_transcript_is_told_and_loses_nothing(first: Path, suite: Path) -> None:
    import shutil

    out = suite.parent / "runs" / "tiny"
    shutil.copytree(first, out)
    kept = rows(out)
    cut = [r for r in kept if r["attack"] != "smoothing"]
    (out / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in cut))
    message = max(out.glob("transcripts/*/messages/*.safetensors"), key=lambda p: p.stat().st_size)
    for path in out.glob("transcripts/*/messages/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-7])
    done = qlorabench("run", "tiny.yaml", cwd=suite.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert "damaged" in done.stderr
    assert "Remove that folder" in done.stderr
    assert message.exists()
    assert rows(out)[: len(cut)] == cut


def test_the_leaderboard_comes_in_every_format(first: Path) -> None:
    for form in ("table", "markdown", "csv", "json"):
        done = qlorabench("leaderboard", first, "--format", form, cwd=first)
        assert done.returncode == 0, done.stderr
        assert "hardened" in done.stdout
    assert max(map(len, qlorabench("leaderboard", first, cwd=first).stdout.splitlines())) <= 100
