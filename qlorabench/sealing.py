"""JSON that carries a checksum of itself, so that what is read is what was written.

A seal finds a byte that a disk or a copy changed, and a line that an editor touched. It is no signature: who changes
a file on purpose can seal it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from qlorabench.files import append_lines, write_atomic

SEAL = "seal"
"""Entry that holds the checksum of the others: 16 hex digits of SHA-256."""
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def sealed(row: Mapping[str, Any], *, besides: Collection[str] = ()) -> dict[str, Any]:
    """Return ``row``, a JSON object, with its seal, which says nothing of the entries ``besides``."""
    return {**row, SEAL: _checksum(row, besides)}


def unsealed(row: Any, *, besides: Collection[str] = ()) -> dict[str, Any]:
    """Invert `sealed`; raises ValueError where ``row`` is no object, or is not what was written."""
    if not isinstance(row, dict) or SEAL not in row:
        raise ValueError("it has no seal")
    rest = {name: value for name, value in row.items() if name != SEAL}
    if _checksum(rest, besides) != row[SEAL]:
        raise ValueError("it is not what was written: its seal does not fit")
    return rest


def read_sealed(data: bytes) -> dict[str, Any]:
    """Return the sealed JSON object in ``data``; raises ValueError where it is damaged, however it is."""
    try:
        return unsealed(json.loads(data))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def append_sealed(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one sealed JSON object a line, and return when they are on the disk."""
    append_lines(path, map(sealed, rows))


def write_sealed_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one sealed JSON object a line by an atomic rename."""
    write_atomic(path, "".join(json.dumps(sealed(row), separators=(",", ":")) + "\n" for row in rows).encode())


def read_sealed_lines(path: Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """Return the sealed lines of a file, the file left as it is.

    A last line without its end was cut short by a kill: it is left out where ``torn`` allows for one, and a missing
    file has no lines then. Raises ValueError, which names the line, for anything else, and OSError.
    """
    if torn and not path.exists():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    if rest and not torn:
        raise ValueError("its last line was cut short")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(read_sealed(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows


def _checksum(row: Mapping[str, Any], besides: Collection[str]) -> str:
    held = {name: value for name, value in row.items() if name not in besides}
    return hashlib.sha256(_CANONICAL.encode(held).encode()).hexdigest()[:16]
