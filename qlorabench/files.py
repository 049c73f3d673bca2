"""Files that are either whole or absent, whatever kills the process, and a disk that may be full."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` by an atomic rename, folders made as needed; raises UserError where that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON by an atomic rename."""
    write_atomic(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line, and return when they are on the disk.

    Where the disk takes only a part of them, that part is cut off again, and UserError raised.
    """
    text = "".join(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n" for row in rows)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                _write_all(file.fileno(), text.encode())
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise


def _write_all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write (a full disk, a quota, a folder that was taken away) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Free space there or mend its permissions, and give "
            "the same command again: what was written before is whole, and the run goes on from there."
        ) from error
