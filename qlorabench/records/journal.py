"""The journal: rows in the order of their cells, appended a cell at a time, whole whatever kills the process.

A cell's rows are one block. Each line carries, beside the fields of its record, ``rows_left``: how many rows
of the same block follow it. A block whose last line does not say 0 was cut short, so that the file alone
tells what is whole, also where a kill falls between two lines.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from qlorabench.errors import UserError
from qlorabench.files import append_lines
from qlorabench.records.record import Record

FINISHED = frozenset({"ok", "unsupported"})
"""Statuses of cells that are not tried again."""
_NEWER = frozenset(field.name for field in fields(Record) if field.default is not MISSING)
"""Fields that older journals lack."""


@dataclass(frozen=True)
class Journal:
    """The rows of one directory of results, in ``path``; one process writes, any number may read."""

    path: Path

    def append(self, records: Sequence[Record]) -> None:
        """Append the rows of one cell, and return when they are on the disk.

        JSON has no NaN and no infinity: such a number becomes missing, and the row's note says what it was.
        """
        _check_block(records)
        self.recover()
        last = len(records) - 1
        append_lines(self.path, [{**_finite(r.to_json()), "rows_left": last - i} for i, r in enumerate(records)])

    def read(self) -> list[Record]:
        """Return the rows of whole blocks in file order; the file is left as it is.

        A cell that was tried again is in it more than once: see ``latest``.
        """
        return [record for block in self._blocks() for record in block]

    def finished_keys(self) -> set[str]:
        """Return the keys of cells that need no other try: those whose last block is ok or unsupported."""
        last = {record.key: record.status for record in self.read()}
        return {key for key, status in last.items() if status in FINISHED}

    def recover(self) -> int:
        """Cut an unfinished block from the end of the file, and return how many bytes were cut."""
        data = self._bytes()
        lines = _whole_lines(data)
        while lines and self._row(lines[-1], number=len(lines))["rows_left"] != 0:
            lines.pop()
        kept = sum(map(len, lines))
        if kept < len(data):
            with self.path.open("r+b") as file:
                file.truncate(kept)
                os.fsync(file.fileno())
        return len(data) - kept

    def _bytes(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def _blocks(self) -> Iterator[list[Record]]:
        block: list[Record] = []
        left: int | None = None
        for number, line in enumerate(_whole_lines(self._bytes()), start=1):
            row = self._row(line, number=number)
            rows_left = row.pop("rows_left")
            record = self._record(row, number=number)
            if block and (rows_left != left or record.key != block[0].key):
                raise self._damaged(number, "the rows of the cell before it are not complete")
            block, left = [*block, record], rows_left - 1
            if rows_left == 0:
                yield block
                block = []

    def _row(self, line: bytes, *, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise self._damaged(number, f"not a JSON object ({error})") from error
        if not isinstance(row, dict):
            raise self._damaged(number, "not a JSON object")
        if type(left := row.get("rows_left")) is not int or left < 0:
            raise self._damaged(number, f"rows_left must be an integer from 0 on, found {left!r}")
        return row

    def _record(self, row: dict[str, Any], *, number: int) -> Record:
        if wrong := (_field_names() - _NEWER - row.keys()) | (row.keys() - _field_names()):
            raise self._damaged(number, f"fields missing or unknown: {', '.join(sorted(wrong))}")
        try:
            return _adapter().validate_python(row)
        except ValidationError as error:
            first = error.errors()[0]
            raise self._damaged(number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def _damaged(self, number: int, what: str) -> UserError:
        return UserError(
            f"{self.path}, line {number}: {what}. Restore the file from a copy, or delete every line of that "
            "cell (those that share its key) and run the same command again: only that cell is done again."
        )


def latest(records: Iterable[Record]) -> list[Record]:
    """Return what counts of each cell: the rows of its last try, at the place of its first.

    A cell is told by its coordinates (suite, task, system, seed, kind, threat, attack), so that rows of a
    former configuration of the same name do not count either; one try has one key and one status.
    """
    cells: dict[tuple[Any, ...], dict[str, Record]] = {}
    for r in records:
        rows = cells.setdefault((r.suite, r.task, r.system, r.seed, r.kind, r.threat, r.attack), {})
        former = next(iter(rows.values()), r)
        if (former.key, former.status) != (r.key, r.status):
            rows.clear()
        rows[r.metric] = r
    return [record for rows in cells.values() for record in rows.values()]


def _check_block(records: Sequence[Record]) -> None:
    """Refuse rows that ``latest`` could not tell from two tries."""
    tries = {(record.key, record.status) for record in records}
    if len(tries) != 1:
        raise ValueError(f"a block has one key and one status, found {sorted(tries)}")
    if len({(record.kind, record.metric) for record in records}) != len(records):
        raise ValueError(f"a metric stands twice in a block: {[record.metric for record in records]}")


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    odd = {name: x for name, x in row.items() if isinstance(x, float) and not math.isfinite(x)}
    said = [row["note"], *(f"{name} is {x}" for name, x in odd.items())]
    return row | dict.fromkeys(odd) | {"note": "; ".join(part for part in said if part)}


def _whole_lines(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


@cache
def _field_names() -> frozenset[str]:
    return frozenset(field.name for field in fields(Record))
