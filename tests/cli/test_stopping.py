"""How a run ends that is stopped, or that meets a mistake while it is at work."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""A job in the background of a shell, as this test may be, starts with interrupts ignored."""
QLORABENCH = [sys.executable, "-c", HEEDING + "from qlorabench.cli import main; main()"]
SUITE = """
name: slow
tasks:
  t:
    backbone: {name: toy}
    data: {source: toy, max_length: 12, test_rows: 40, holdout_rows: 40}
    clients: 2
    rows_per_client: [8, 20]
    lora: {rank: 4, alpha: 8, targets: [query]}
    head: {train: shared}
    training: {rounds: 2, local_steps: 1, batch_size: 4, optimizer: {kind: sgd, lr: 0.1, head_lr: 0.1}}
systems:
  plain: {}
threats: [server]
attacks: ['sleeps.py:Sleeps']
"""
SLEEPS = '''
import time
from pathlib import Path

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal


class Sleeps(Attack[AttackConfig]):
    """Never ends."""

    name = "sleeps"
    goal = Goal.MEMBERSHIP
    Config = AttackConfig
    requires = frozenset({Capability.CANDIDATES})

    def run(self, view, rng):
        Path("asleep").touch()
        time.sleep(600)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.yaml").write_text(SUITE)
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    return tmp_path


def parent(process: int) -> int | None:
    """The parent of a process that runs."""
    try:
        state, number = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(number)


def children(process: int) -> list[int]:
    everyone = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [one for one in everyone if parent(one) == process]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted as Linux shows them")
def test_a_run_that_is_stopped_in_a_long_attack_ends_at_once(folder: Path) -> None:
    process = subprocess.Popen(
        [*QLORABENCH, "run", "slow.yaml", "--workers", "1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 90
    while not (folder / "asleep").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert (folder / "asleep").exists(), process.communicate()
    workers = children(process.pid)
    assert workers
    process.terminate()
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 143, said
    assert "The same command resumes: qlorabench run slow.yaml --workers 1" in said
    assert not re.search("Traceback|leaked|Exception", said), said
    end = time.monotonic() + 10
    while (left := [worker for worker in workers if parent(worker)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def test_a_run_that_is_stopped_while_it_starts_has_no_traceback(folder: Path) -> None:
    process = subprocess.Popen(
        [*QLORABENCH, "run", "slow.yaml", "--workers", "2"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = ""
    while "starting 2 workers" not in said:
        said += (line := process.stdout.readline())
        assert line, said
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers and helpers get it too
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130, said + rest
    assert "Traceback" not in rest


LATE = '''
import time
from pathlib import Path

from qlorabench.errors import UserError
from qlorabench.federation.defense import Defense, DefenseConfig


class Slow(Defense[DefenseConfig]):
    """Trains for ever."""

    name = "slow"
    Config = DefenseConfig

    def encode_update(self, payload, context):
        if context.round and context.client == 1:
            Path("trains").touch()
            time.sleep(600)
        return payload


class Late(Defense[DefenseConfig]):
    """Notices a mistake of its user's once the other trains."""

    name = "late"
    Config = DefenseConfig

    def public_facts(self, schedule):
        while not Path("trains").exists():
            time.sleep(0.02)
        raise UserError("late: the noise [/data/x] cannot be had. Take less.")
'''


def test_a_mistake_that_shows_while_another_federation_trains_ends_the_run(folder: Path) -> None:
    (folder / "late.py").write_text(LATE)
    systems = "systems:\n  plain: {}\n  a: {defenses: ['late.py:Slow']}\n  b: {defenses: ['late.py:Late']}\n"
    (folder / "slow.yaml").write_text(
        SUITE.replace("systems:\n  plain: {}\n", systems).replace("sleeps.py:Sleeps", "span")
    )
    done = subprocess.run(
        [*QLORABENCH, "run", "slow.yaml", "--workers", "2"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr == "qlorabench: late: the noise [/data/x] cannot be had. Take less.\n"
