"""Workers that are lost, pools that are left, and processes that nobody may outlive."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qlorabench.engines.failures import JobFailed, PoolClosed, ending
from qlorabench.engines.pool import Pool
from qlorabench.errors import told

HERE = Path(__file__)


def setup():
    return os.getpid()


def process_of(context):
    return context


def die_once(context, marker):
    """Be killed as by the kernel, unless it has happened before."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def killed(context):
    os.kill(os.getpid(), signal.SIGKILL)


def crash(context):
    import ctypes

    print("before the crash")
    ctypes.string_at(0)


def leave(context):
    raise SystemExit("enough")


def chatter(context):
    print("a line")
    os.system("echo from a process of its own")
    sys.stderr.write("a warning\n")


def chatter_and_fail(context):
    print("what I saw")
    raise ArithmeticError("of the job itself")


def sleep(context, marker):
    marker.touch()
    time.sleep(60)


def wait_for(path, seconds=30):
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists()


@pytest.fixture(scope="module")
def heard():
    return []


@pytest.fixture(scope="module")
def pool(heard):
    with Pool(setup, workers=1, overheard=heard.append) as pool:
        yield pool


def test_a_job_whose_worker_is_killed_is_done_again(pool, tmp_path):
    before = pool.submit(process_of).result()
    assert pool.submit(die_once, tmp_path / "died").result() == "done"
    assert pool.submit(process_of).result() != before


def test_a_job_that_is_killed_twice_says_by_what(pool):
    with pytest.raises(JobFailed) as lost:
        pool.submit(killed).result()
    assert "killed by signal 9 (SIGKILL), as the kernel does where memory runs out" in lost.value.note


def test_a_crash_of_the_interpreter_is_told_with_its_traceback(pool):
    with pytest.raises(JobFailed) as lost:
        pool.submit(crash).result()
    assert "killed by signal 11 (SIGSEGV)" in lost.value.note
    assert "before the crash" in str(lost.value)
    assert "in crash" in str(lost.value)


def test_a_job_that_ends_the_interpreter_fails_alone(pool):
    before = pool.submit(process_of).result()
    with pytest.raises(JobFailed, match="enough") as failed:
        pool.submit(leave).result()
    assert failed.value.note.startswith("SystemExit in test_pool_losses.py:")
    assert pool.submit(process_of).result() == before


def test_what_a_job_prints_stays_off_the_terminal(pool, heard, capfd):
    heard.clear()
    pool.submit(chatter).result()
    assert heard == ["a line\nfrom a process of its own\na warning\n"]
    assert capfd.readouterr() == ("", "")


def test_what_a_job_printed_stands_behind_its_traceback(pool, heard):
    heard.clear()
    with pytest.raises(JobFailed, match=r"(?s)of the job itself.*What it printed:\nwhat I saw"):
        pool.submit(chatter_and_fail).result()
    assert heard == []


def test_a_pool_that_is_left_by_an_error_kills_what_runs_and_takes_no_more(tmp_path):
    pool = Pool(setup, workers=1)
    running, waiting = pool.submit(sleep, tmp_path / "runs"), pool.submit(process_of)
    wait_for(tmp_path / "runs")
    pool.__exit__(ArithmeticError, ArithmeticError(), None)
    with pytest.raises(PoolClosed):
        running.result(timeout=0)
    assert waiting.cancelled()
    with pytest.raises(PoolClosed):
        pool.submit(process_of)


def test_a_pool_that_is_left_while_its_workers_start_ends():
    pool = Pool(setup, workers=2)
    futures = [pool.submit(process_of) for _ in range(2)]
    pool.__exit__(ArithmeticError, ArithmeticError(), None)
    assert all(future.done() for future in futures)


PARENT = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(HERE.parents[2])!r})
from qlorabench.engines.pool import Pool
from tests.engines.test_pool_losses import setup, process_of, sleep

if __name__ == "__main__":
    with Pool(setup, workers=1) as pool:
        print(pool.submit(process_of).result(), flush=True)
        pool.submit(sleep, Path(sys.argv[1])).result()
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        wait_for(tmp_path / "runs")
        parent.kill()
    end = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(process):
    """Tell whether a process runs; one that ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "ended"),
        (3, "ended with exit code 3"),
        (-9, "was killed by signal 9 (SIGKILL), as the kernel does where memory runs out"),
        (-7, "was killed by signal 7 (SIGBUS)"),
        (-200, "was killed by signal 200"),
    ],
)
def test_how_a_process_ended_is_said_in_words(code, said):
    assert ending(code) == said


def test_an_error_is_told_in_one_line_from_the_place_that_is_to_blame():
    class Odd(Exception):
        def __str__(self):
            raise ValueError

    for error, said in (
        (ValueError("first\nsecond  third"), "): first second third"),
        (ValueError("x" * 1000), "x" * 300 + "..."),
        (Odd(), "(its message cannot be had: ValueError)"),
        (ValueError(), "(test_an_error_is_told_in_one_line_from_the_place_that_is_to_blame)"),
    ):
        try:
            raise error
        except Exception as caught:  # noqa: BLE001
            note = told(caught, within=[HERE.parent])
        assert note.startswith(f"{type(error).__name__} in {HERE.name}:")
        assert note.endswith(said)
        assert "\n" not in note
