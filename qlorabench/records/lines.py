"""One line of the journal: a record, its place in its block, and a seal over both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from qlorabench.records.record import Record, contradiction
from qlorabench.sealing import SEAL, sealed, unsealed

COSTS = ("seconds", "peak_bytes")
"""What differs between two runs of the same suite, so that the seals of both are the same."""
_FIELDS = frozenset(field.name for field in fields(Record))
_REQUIRED = frozenset(field.name for field in fields(Record) if field.default is MISSING)
"""Fields that the oldest journals have."""


@dataclass(frozen=True)
class Line:
    """What one line says."""

    record: Record
    rows_left: int
    """Rows of the same block that follow."""
    rows: int | None
    """Rows of the block; ``None`` in journals of before it was written."""


def written(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the lines of one block; numbers that JSON has not and characters that UTF-8 has not are replaced."""
    count = len(records)
    return [
        sealed({**_writable(record.to_json()), "rows": count, "rows_left": count - 1 - i}, besides=COSTS)
        for i, record in enumerate(records)
    ]


def parse(text: bytes) -> Line:
    """Read one line; raises ValueError, which says what is wrong, for one that is damaged in any way."""
    row = parse_shape(text)
    place = {name: row.pop(name) for name in ("rows", "rows_left", SEAL) if name in row}
    record = _record(row)
    if place.keys() == {"rows_left"}:
        return Line(record, place["rows_left"], None)
    if missing := {"rows", SEAL} - place.keys():
        raise ValueError(f"fields missing or unknown: {', '.join(sorted(missing))}")
    unsealed({**row, **place}, besides=COSTS)
    return Line(record, place["rows_left"], place["rows"])


def parse_shape(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a line with its ``rows_left`` checked, and no other entry; raises as `parse`."""
    try:
        row = _DECODER.decode(text.decode())
    except RecursionError as error:
        raise ValueError("not a JSON object (it is nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if type(left := row.get("rows_left")) is not int or left < 0:
        raise ValueError(f"rows_left must be an integer from 0 on, found {left!r}")
    return row


def check_order(line: Line, block: Sequence[Line]) -> None:
    """Raise ValueError where ``line`` cannot follow the lines of its block so far."""
    if not block:
        if line.rows is not None and line.rows_left != line.rows - 1:
            raise ValueError(
                f"row {line.rows - line.rows_left} of a cell that has {line.rows}, without those before it: "
                "the rows of the cell are not complete"
            )
        return
    before = block[-1]
    if (line.rows_left, line.rows) != (before.rows_left - 1, before.rows) or _cell(line) != _cell(before):
        raise ValueError("the rows of the cell before it are not complete")


def _cell(line: Line) -> tuple[Any, ...]:
    """Return what all rows of a block share."""
    r = line.record
    return r.key, r.suite, r.task, r.system, r.seed, r.kind, r.threat, r.attack, r.goal, r.status


def _record(row: dict[str, Any]) -> Record:
    if not _REQUIRED <= row.keys() <= _FIELDS:
        wrong = (_REQUIRED - row.keys()) | (row.keys() - _FIELDS)
        raise ValueError(f"fields missing or unknown: {', '.join(sorted(wrong))}")
    try:
        record = _adapter().validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}, found {row[str(first['loc'][0])]!r:.60}") from error
    if what := contradiction(record):
        raise ValueError(what)
    return record


def _writable(row: dict[str, Any]) -> dict[str, Any]:
    said = {name: x.encode("utf-8", "replace").decode() if isinstance(x, str) else x for name, x in row.items()}
    odd = {name: x for name, x in said.items() if isinstance(x, float) and not math.isfinite(x)}
    notes = [said["note"], *(f"{name} is {x}" for name, x in odd.items())]
    return said | dict.fromkeys(odd) | {"note": "; ".join(part for part in notes if part)}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
