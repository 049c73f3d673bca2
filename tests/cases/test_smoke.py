from .conftest import Invoke


def test_a_suite_runs_in_this_process(invoke: Invoke) -> None:
    done = invoke("run", "base.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
