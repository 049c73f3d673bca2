"""The journal: rows in the order of their cells, appended a cell at a time, whole whatever kills the process.

A cell's rows are one block. Each line carries, beside the fields of its record, ``rows``, how many rows its block has,
``rows_left``, how many of them follow, and a seal (see `qlorabench.sealing`) over all but what the cell cost. So the
file alone tells what is whole: also where a kill falls between two lines, or a line was lost or changed since.
Journals of before have ``rows_left`` alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from qlorabench.errors import UserError
from qlorabench.files import append_lines
from qlorabench.records import lines
from qlorabench.records.record import Record

FINISHED = frozenset({"ok", "unsupported"})
"""Statuses of cells that are not tried again."""
_TAIL = 1 << 16
"""Bytes that are read from the end of a journal at first, to look for the end of its last whole block."""


@dataclass(frozen=True)
class Block:
    """The rows of one try of one cell."""

    records: tuple[Record, ...]
    line: int
    """Line of the first row, counted from 1."""

    @property
    def key(self) -> str:
        """The content key of the cell."""
        return self.records[0].key

    @property
    def finished(self) -> bool:
        """Whether the cell needs no other try."""
        return self.records[0].status in FINISHED


@dataclass(frozen=True)
class Journal:
    """The rows of one directory of results, in ``path``; one process writes, any number may read."""

    path: Path

    def append(self, records: Sequence[Record]) -> None:
        """Append the rows of one cell, and return when they are on the disk.

        JSON has no NaN and no infinity: such a number becomes missing, and the row's note says what it was. Raises
        ValueError for rows that are not one try of one cell, or that could not be read again.
        """
        _check_block(records)
        rows = lines.written(records)
        for row in rows:
            lines.parse(json.dumps(row).encode())
        self.recover()
        append_lines(self.path, rows)

    def read(self) -> list[Record]:
        """Return the rows of whole blocks in file order; the file is left as it is.

        A cell that was tried again is in it more than once: see ``latest``. Raises UserError, with the line, where the
        file is damaged.
        """
        return [record for block in self.blocks() for record in block.records]

    def finished_keys(self) -> set[str]:
        """Return the keys of cells that need no other try: those whose last block is ok or unsupported."""
        last = {block.key: block.finished for block in self.blocks()}
        return {key for key, finished in last.items() if finished}

    def blocks(self) -> Iterator[Block]:
        """Yield the whole blocks in file order; raises UserError, with the line, where the file is damaged."""
        data = self.path.read_bytes() if self.path.exists() else b""
        block: list[lines.Line] = []
        for number, text in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                line = lines.parse(text)
                lines.check_order(line, block)
            except ValueError as error:
                raise self.damaged(number, str(error)) from error
            block.append(line)
            if line.rows_left == 0:
                yield Block(tuple(line.record for line in block), number - len(block) + 1)
                block = []

    def recover(self) -> int:
        """Cut an unfinished block from the end of the file, and return how many bytes were cut.

        No more of the file is read than its end, whatever its size.
        """
        if not self.path.exists():
            return 0
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            kept = self._end_of_whole(file, size)
            if kept < size:
                file.truncate(kept)
                os.fsync(file.fileno())
        return size - kept

    def _end_of_whole(self, file: BinaryIO, size: int) -> int:
        """Return where the last whole block ends, as an offset in bytes."""
        span = _TAIL
        while True:
            start = max(0, size - span)
            file.seek(start)
            _, *whole = (b"\n" + file.read() if start == 0 else file.read()).split(b"\n")
            end = size - len(whole.pop()) if whole else start
            for text in reversed(whole):
                try:
                    if lines.parse_shape(text)["rows_left"] == 0:
                        return end
                except ValueError as error:
                    file.seek(0)
                    raise self.damaged(file.read(end).count(b"\n"), str(error)) from error
                end -= len(text) + 1
            if start == 0:
                return 0
            span *= 4

    def damaged(self, line: int, what: str) -> UserError:
        """Return the error that names a line of the file, what is wrong with it, and how to mend it."""
        return UserError(
            f"{self.path}, line {line}: {what}. Restore the file from a copy, or delete every line of that "
            "cell (those that share its key) and run the same command again: only that cell is done again."
        )


def latest(records: Iterable[Record]) -> list[Record]:
    """Return what counts of each cell: the rows of its last try, at the place of its first.

    A cell is told by its coordinates (suite, task, system, seed, kind, threat, attack), so that rows of a
    former configuration of the same name do not count either; one try has one key and one status. Which configuration
    is meant the rows do not say: where a folder has a plan, `qlorabench.records.results` goes by that.
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
