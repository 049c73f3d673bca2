import multiprocessing
import os
import time
from types import SimpleNamespace

import pytest
import torch

from qlorabench.engines.pool import JobFailed, JobTimeout, Pool, timed
from qlorabench.engines.worker import Answer
from qlorabench.errors import UserError


def setup(offset):
    return SimpleNamespace(offset=offset, process=os.getpid())


def add(context, value):
    return context.offset + value


def process_of(context):
    return context.process


def threads(context):
    return torch.get_num_threads()


def fail(context):
    raise ArithmeticError("of the job itself")


def complain(context):
    raise UserError("the suite is wrong: mend it")


def sleep(context, seconds):
    time.sleep(seconds)


def die(context):
    os._exit(3)


def fill(context, megabytes):
    return len(b"1" * (megabytes << 20))


def unsendable(context):
    return lambda: None


def broken_setup():
    raise UserError("no such backbone")


@pytest.fixture(scope="module")
def pool():
    with Pool(setup, 100, workers=1) as pool:
        yield pool


def test_a_result_comes_back(pool):
    futures = [pool.submit(add, i) for i in range(20)]
    assert [future.result() for future in futures] == [100 + i for i in range(20)]


def test_tensors_come_back_as_they_were(pool):
    tensor = torch.arange(5.0)
    assert torch.equal(pool.submit(add, tensor).result(), tensor + 100)


def test_a_worker_computes_on_one_thread(pool):
    assert pool.submit(threads).result() == 1


def test_the_context_is_built_once(pool):
    assert pool.submit(process_of).result() == pool.submit(process_of).result() != os.getpid()


def test_an_exception_is_told_with_its_traceback_and_costs_no_worker(pool):
    before = pool.submit(process_of).result()
    with pytest.raises(JobFailed, match="ArithmeticError: of the job itself") as told:
        pool.submit(fail).result()
    assert "Traceback" in str(told.value)
    assert "in fail" in str(told.value)
    assert pool.submit(process_of).result() == before


def test_a_users_mistake_stays_a_users_mistake(pool):
    with pytest.raises(UserError, match=r"^the suite is wrong: mend it$"):
        pool.submit(complain).result()


def test_a_result_that_cannot_be_sent_is_a_failure(pool):
    with pytest.raises(JobFailed, match="unsendable"):
        pool.submit(unsendable).result()
    assert pool.submit(add, 1).result() == 101


def test_a_job_that_cannot_be_sent_fails_alone(pool):
    with pytest.raises(Exception, match="lambda"):
        pool.submit(lambda context: None).result()
    assert pool.submit(add, 1).result() == 101


def test_a_job_over_its_time_is_ended_and_the_pool_goes_on(pool):
    before = pool.submit(process_of).result()
    start = time.monotonic()
    late, next_one = pool.submit(sleep, 60, seconds=0.2), pool.submit(process_of)
    with pytest.raises(JobTimeout):
        late.result()
    assert time.monotonic() - start < 10
    assert next_one.result() != before


def test_a_job_within_its_time_is_left_alone(pool):
    assert pool.submit(add, 1, seconds=30).result() == 101


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not count peaks")
def test_the_peak_is_that_of_the_job_alone(pool):
    small, large, again = (pool.submit(timed, fill, megabytes).result() for megabytes in (1, 300, 1))
    assert large.peak_bytes - small.peak_bytes == pytest.approx(299 << 20, rel=0.1)
    assert again.peak_bytes == pytest.approx(small.peak_bytes, rel=0.1)


def test_a_peak_that_cannot_be_counted_is_missing(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert timed(None, lambda context: 7)[::2] == (7, None)


def test_a_worker_that_dies_is_reported_and_replaced(pool):
    before = pool.submit(process_of).result()
    with pytest.raises(JobFailed, match="the worker process ended with exit code 3") as told:
        pool.submit(die).result()
    assert told.value.note == "the worker process ended with exit code 3, on the second try too"
    assert pool.submit(process_of).result() != before


def test_a_setup_that_fails_tells_why_and_leaves_no_process():
    before = set(multiprocessing.active_children())
    with Pool(broken_setup, workers=1) as pool:
        future = pool.submit(add, 1)
        with pytest.raises(UserError, match="no such backbone"):
            future.result()
    left = set(multiprocessing.active_children()) - before
    for process in left:
        process.kill()
    assert not left


class Here:
    """Stands in for a worker process."""

    ended = False

    def __init__(self, setup, arguments):
        self.context = setup(*arguments)
        self.context.process = id(self)

    def call(self, function, arguments, seconds):
        return Answer(function(self.context, *arguments), "")

    def end(self):
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_cancelled_job_does_not_stop_the_pool(monkeypatch):
    monkeypatch.setattr("qlorabench.engines.pool.Worker", Here)
    with Pool(setup, 100, workers=1) as pool:
        running, waiting = pool.submit(sleep, 0.1), pool.submit(add, 1)
        assert waiting.cancel()
        running.result()
        assert pool.submit(add, 2).result(timeout=0.5) == 102


@pytest.mark.parametrize("idle", [0.02])
def test_jobs_that_share_something_go_to_one_worker_while_nobody_has_to_wait(monkeypatch, idle):
    monkeypatch.setattr("qlorabench.engines.pool.Worker", Here)
    with Pool(setup, 100, workers=2) as pool:
        where = []
        for _ in range(10):
            where.append(pool.submit(process_of, near="a federation").result())
            time.sleep(idle)
    assert len(set(where)) == 1


def test_what_was_not_begun_is_cancelled_when_the_pool_is_left(monkeypatch):
    monkeypatch.setattr("qlorabench.engines.pool.Worker", Here)
    with Pool(setup, 100, workers=1) as pool:
        running = pool.submit(sleep, 0.2)
        time.sleep(0.05)
        waiting = [pool.submit(add, i) for i in range(3)]
    assert running.done()
    assert not running.cancelled()
    assert all(future.cancelled() for future in waiting)
