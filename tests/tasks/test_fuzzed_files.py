"""Damaged files of every format: a table, or one message with the file's name."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from qlorabench.errors import UserError
from qlorabench.tasks.dataset import Table
from qlorabench.tasks.local_files import CsvSource, JsonlSource, ParquetSource, TextSource

ROWS = [{"text": f'say "{word}", twice', "label": i % 2, "who": "ab"[i % 2]} for i, word in enumerate(["hé", "b", "c"])]
PIECES = [
    b"",
    b"\x00",
    b"\xff",
    b"\r",
    b'"',
    b"\n" * 3,
    b"," * 50,
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"\xef\xbb\xbf",
    b"PAR1",
]
PIECES += [b"\xed\xa0\x80", b"[" * 3000, b"9" * 5000, b"x" * 200_000]
"""What is put into a file: line ends, quotes, halves of pairs, depth, size."""


def written(cls: type, file: Path) -> bytes:
    if cls is ParquetSource:
        parquet.write_table(pa.Table.from_pylist(ROWS), file)
        return file.read_bytes()
    if cls is JsonlSource:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    cells = [[f'"{str(v).replace(chr(34), chr(34) * 2)}"' for v in row.values()] for row in ROWS]
    return ("text,label,who\n" + "".join(",".join(row) + "\n" for row in cells)).encode()


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """A few cuts: where in the file, how many bytes go, and what comes in their place."""
    piece = st.sampled_from(PIECES) | st.binary(max_size=4)
    return draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), piece), min_size=1, max_size=3))


@pytest.mark.parametrize("cls", [CsvSource, JsonlSource, ParquetSource, TextSource])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes())
def test_a_damaged_file_is_a_table_or_a_message(
    cls: type, tmp_path: Path, made: list[tuple[float, int, bytes]]
) -> None:
    file = tmp_path / "damaged.data"
    content = written(cls, file)
    for place, gone, piece in made:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + gone :]
    file.write_bytes(content)
    columns = {} if cls is TextSource else {"text": "text", "label": "label", "group": "who"}
    try:
        table = cls(path=file.name, **columns).load(base=tmp_path)
    except UserError as error:
        message = str(error)
        assert "damaged.data" in message
        assert len(message.encode()) < 4000
    else:
        assert isinstance(table, Table)
        assert len(table.fingerprint) == 64
