"""The folder that a run writes to: writable, and held by one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qlorabench.errors import UserError


def check_out(out: Path) -> None:
    """Raise UserError where ``out`` cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}. Name another folder with --out.") from error


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder against a second run; the lock goes with the process, however it ends."""
    import fcntl

    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another run is writing to {out}. Wait for it, or name another folder with --out."
            ) from error
        yield
