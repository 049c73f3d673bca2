"""Seeds that are chosen at the command line stand in place of the suite's."""

import json
from pathlib import Path

import pytest

from .conftest import Invoke


def test_other_seeds_are_run_and_only_they_are_shown(invoke: Invoke, inputs: Path) -> None:
    assert invoke("run", "base.yaml", "--seeds", "3, 1").returncode == 0
    board = json.loads(invoke("leaderboard", "runs/base", "--format", "json").stdout)
    assert board["tasks"][0]["seeds"] == [1, 3]
    assert json.loads((inputs / "runs" / "base" / "manifest.json").read_text())["seeds"] == [3, 1]
    assert invoke("run", "base.yaml").returncode == 0
    board = json.loads(invoke("leaderboard", "runs/base", "--format", "json").stdout)
    assert board["tasks"][0]["seeds"] == [0]


@pytest.mark.parametrize("said", ["", "one", "0,0", "-1", "1.5", "0,", "9" * 30])
def test_what_is_no_list_of_seeds_is_told(invoke: Invoke, said: str) -> None:
    done = invoke("run", "base.yaml", f"--seeds={said}")
    assert done.returncode == 2
    assert "seeds" in done.stderr
    assert "Traceback" not in done.stderr
