"""A full disk is a message, and no loss."""

import resource
from contextlib import contextmanager

import pytest

from qlorabench.engines import sharing
from qlorabench.errors import UserError
from qlorabench.files import append_lines, write_atomic


@contextmanager
def full_after(size):
    """Let no file of this process grow beyond so many bytes, as a disk with as much room left does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_leaves_the_former_one_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "file"
    write_atomic(path, b"former")
    with full_after(100), pytest.raises(UserError, match=r"file cannot be written: .*Free space there"):
        write_atomic(path, b"x" * 1000)
    assert path.read_bytes() == b"former"
    assert list(path.parent.iterdir()) == [path]


def test_lines_that_do_not_fit_leave_the_former_ones_whole(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_lines(path, [{"a": 1}])
    with full_after(100), pytest.raises(UserError, match=r"lines\.jsonl cannot be written"):
        append_lines(path, [{"a": "x" * 60}, {"a": "x" * 60}])
    assert path.read_text() == '{"a":1}\n'
    append_lines(path, [{"a": 2}])
    assert path.read_text() == '{"a":1}\n{"a":2}\n'


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_atomic(tmp_path / "taken" / "file", b"")


def test_too_little_shared_memory_is_told_with_what_is_needed(monkeypatch):
    import torch

    model = torch.nn.Linear(1000, 1000)
    monkeypatch.setattr(sharing, "_free", lambda: 64 * 1024)
    with pytest.raises(UserError, match=r"4\.8 MiB are needed and 0\.1 MiB are free.*--shm-size"):
        sharing.share(model)
    assert not model.weight.is_shared()
    monkeypatch.setattr(sharing, "_free", lambda: 2**30)
    sharing.share(model)
    assert model.weight.is_shared()
