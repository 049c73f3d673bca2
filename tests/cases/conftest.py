"""Inputs of the kinds that users report, each run as a user would run it, in this process.

`inputs/` holds suites and data; `make_models.py` builds the tiny model folders that some of the suites name.
"""

import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from qlorabench.cli.app import run
from qlorabench.engines.failures import JobFailed, note_of
from qlorabench.errors import UserError

from .make_models import build

INPUTS = Path(__file__).parent / "inputs"

Invoke = Callable[..., subprocess.CompletedProcess[str]]


class InProcessPool:
    """Stands in for a pool of workers: jobs run one at a time in this process, without the seconds of a new one."""

    def __init__(self, setup: Callable[..., Any], *arguments: Any, workers: int, **_: Any) -> None:
        self._context = setup(*arguments)
        self._alone = threading.Lock()

    def __enter__(self) -> "InProcessPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any, **_: Any) -> Future[Any]:
        """Run a job; its future fails as that of a worker does."""
        future: Future[Any] = Future()
        try:
            with self._alone:
                future.set_result(function(self._context, *arguments))
        except UserError as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - a worker hands on the text of what a job raised
            future.set_exception(JobFailed(traceback.format_exc(), note_of(error)))
        return future


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny models, built once."""
    folder = tmp_path_factory.mktemp("built") / "models"
    build(folder)
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A copy of the inputs, which runs may write beside."""
    folder = tmp_path / "inputs"
    shutil.copytree(INPUTS, folder)
    return folder


@pytest.fixture
def inputs_with_models(inputs: Path, models: Path) -> Path:
    """The same with the model folders in their place."""
    (inputs / "models").symlink_to(models)
    return inputs


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inputs: Path) -> Invoke:
    """The command line in this process, in the folder of the inputs: what it prints, and its exit code."""
    monkeypatch.setattr("qlorabench.engines.run.Pool", InProcessPool)
    monkeypatch.setenv("COLUMNS", "112")
    monkeypatch.chdir(inputs)

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["qlorabench", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            run()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(list(words), int(stop.value.code or 0), said.out, said.err)

    return call
