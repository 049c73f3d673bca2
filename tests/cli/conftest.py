import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qlorabench.cli.app import run

SUITE = """
name: tiny
tasks:
  opinions:
    backbone: {name: toy}
    data: {source: toy, max_length: 12, test_rows: 60, holdout_rows: 60}
    clients: 3
    rows_per_client: [8, 40, 40]
    lora: {rank: 4, alpha: 8}
    head: {train: shared}
    training:
      rounds: 4
      local_steps: 3
      batch_size: 8
      weighting: examples
      optimizer: {kind: sgd, lr: 0.3, head_lr: 0.3}
systems:
  plain: {}
  hardened:
    defenses: [quantized-broadcast: {bits: 3, rounding: stochastic}, frozen-a, dp-sgd: {epsilon: 8}]
threats: [server, client, end-user]
attacks: [span, calibrated-loss, smoothing]
candidates: 40
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return path


def qlorabench(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from qlorabench.cli import main; main()", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command in this process: what it prints and its exit code, without the seconds of a new interpreter."""

    def call(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["qlorabench", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            run()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(list(words), int(stop.value.code or 0), said.out, said.err)

    return call
