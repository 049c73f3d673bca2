"""Texts in files of the user's: delimited columns, JSON lines, Parquet, and plain text.

Whatever is wrong with a file is one message with the file's name and, where there is one, the line.
"""

from __future__ import annotations

import csv
import json
import re
import stat
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from qlorabench.errors import UserError, nearest
from qlorabench.tasks.dataset import Table, require_columns, shown, table_from_rows
from qlorabench.tasks.sources import Source

Row = dict[str, Any]
_HERE = Path()
_MOST_ROWS = 10_000_000
"""Rows that a Parquet file may say it has: a few bytes can promise any number, and each becomes an object."""
_NEAR = 1000
"""Names of other files among which a similar one is looked for."""
_MAGIC = {
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ\x00": "compressed by xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
    b"PK\x03\x04": "a zip archive, or a spreadsheet; unpack it, or save the sheet as csv",
    b"PAR1": "a Parquet file; read it with the source 'parquet'",
}
"""How files begin that are no text."""


@dataclass(frozen=True)
class Records:
    """What a file holds: the names of all its columns, and rows that hold at least the ones asked for."""

    columns: list[str]
    rows: list[Row]


class LocalFile(Source):
    """Base class of all local files."""

    path: str = Field(min_length=1, description="File; a relative path starts at the suite's folder")

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the file's table; every reason why that fails is a ``UserError``."""
        file = _find(self.path, base=base)
        try:
            return self.parse(file)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file} as {self.name}: {_brief(error)}.{self._hint(error)}") from error

    @abstractmethod
    def parse(self, file: Path) -> Table:
        """Return the table in ``file``; what cannot be read raises an ``OSError`` or a ``ValueError``."""

    def _hint(self, error: Exception) -> str:
        return ""


class FileSource(LocalFile):
    """Base class of the files with columns: their names."""

    text: str = Field(min_length=1, description="Column that holds the texts")
    label: str | None = Field(
        default=None,
        min_length=1,
        description="Column that holds the labels: text, whole numbers or true/false; none for language modeling",
    )
    group: str | None = Field(default=None, min_length=1, description="Column that groups rows, for partitions")

    @property
    def labelled(self) -> bool:
        """Whether a column of labels is named."""
        return self.label is not None

    @property
    def used(self) -> list[str]:
        """The columns that are asked for."""
        return [column for column in (self.text, self.label, self.group) if column is not None]

    def parse(self, file: Path) -> Table:
        """Return the table of the named columns."""
        records = self.read(file)
        require_columns(self.used, columns=records.columns, where=str(file))
        return table_from_rows(records.rows, name=file.name, text=self.text, label=self.label, group=self.group)

    @abstractmethod
    def read(self, file: Path) -> Records:
        """Return what ``file`` holds; what cannot be read raises an ``OSError`` or a ``ValueError``."""


class CsvSource(FileSource):
    """A text file of delimited columns with a header line."""

    name: ClassVar[str] = "csv"
    description: ClassVar[str] = "a local file of delimited columns with a header line"

    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Character between columns")
    encoding: str = Field(
        default="utf-8",
        min_length=1,
        max_length=40,
        description="Encoding of the file; a byte-order mark is skipped",
    )
    quote: str = Field(default='"', max_length=1, description="Quote character; empty where nothing is quoted")

    def read(self, file: Path) -> Records:
        """Return one row a record, by the header's names; a record of another length is an error."""
        _require_text(file)
        with file.open(encoding=_codec(self.encoding), newline="") as stream, _cells_of(file.stat().st_size):
            try:
                reader = csv.reader(stream, delimiter=self.delimiter, strict=True, **self._quoting())
                header = next(reader, [])
                if twice := [name for name, count in Counter(header).items() if count > 1]:
                    raise ValueError(f"the column name {shown(twice[0])} stands twice in the header")
                rows = [_record(header, cells=cells, line=reader.line_num) for cells in reader if cells]
            except (csv.Error, TypeError) as error:  # a delimiter or quote that csv does not take is a TypeError
                raise ValueError(str(error)) from error
        return Records(columns=header, rows=rows)

    def _quoting(self) -> dict[str, Any]:
        return {"quotechar": self.quote} if self.quote else {"quoting": csv.QUOTE_NONE}

    def _hint(self, error: Exception) -> str:
        if isinstance(error, UnicodeError):
            return f" It is not {self.encoding}; set 'encoding', for instance to latin-1."
        return " Check 'delimiter' and 'quote' (quote: '' where nothing is quoted)."


class JsonlSource(FileSource):
    """A file with one JSON object a line."""

    name: ClassVar[str] = "jsonl"
    description: ClassVar[str] = "a local file with one JSON object a line"

    def read(self, file: Path) -> Records:
        """Return one row a line; blank lines are skipped."""
        _require_text(file)
        lines = file.read_text("utf-8-sig").split("\n")
        rows = [_json_object(line, number=i) for i, line in enumerate(lines, start=1) if line.strip()]
        return Records(columns=list(dict.fromkeys(key for row in rows for key in row)), rows=rows)

    def _hint(self, error: Exception) -> str:
        return " JSON lines are utf-8; convert the file." if isinstance(error, UnicodeError) else ""


class ParquetSource(FileSource):
    """An Apache Parquet file."""

    name: ClassVar[str] = "parquet"
    description: ClassVar[str] = "a local Apache Parquet file"

    def read(self, file: Path) -> Records:
        """Return the rows; of the other columns the names only."""
        from pyarrow import ArrowException, parquet

        try:
            columns = list(parquet.read_schema(file).names)
            if (rows := parquet.read_metadata(file).num_rows) > _MOST_ROWS:
                raise ValueError(f"it has {rows:,} rows; {_MOST_ROWS:,} are the most that are read")
            wanted = [column for column in columns if column in self.used]
            return Records(columns=columns, rows=parquet.read_table(file, columns=wanted).to_pylist())
        except (ArrowException, ArithmeticError, MemoryError) as error:
            # Not all of them are ValueErrors: types that it cannot convert, times that Python does not know.
            raise ValueError(str(error)) from error


class TextSource(LocalFile):
    """A file of plain text, for language modeling: no columns, no labels."""

    name: ClassVar[str] = "text"
    description: ClassVar[str] = "a local file of plain text, for language modeling: a text a line or a paragraph"

    unit: Literal["line", "paragraph"] = Field(
        default="line", description="What one text is: a line, or a paragraph, which ends at a blank line"
    )
    encoding: str = Field(
        default="utf-8",
        min_length=1,
        max_length=40,
        description="Encoding of the file; a byte-order mark is skipped",
    )

    @property
    def labelled(self) -> bool:
        """Plain text has no labels."""
        return False

    def parse(self, file: Path) -> Table:
        """Return the texts in the file's order; the lines of a paragraph are joined by a space."""
        _require_text(file)
        lines = file.read_text(_codec(self.encoding)).split("\n")  # the ends \r and \r\n are read as \n
        if self.unit == "line":
            texts = [line.strip() for line in lines if line.strip()]
        else:
            paragraphs = re.split(r"\n{2,}", "\n".join(line.strip() for line in lines))
            texts = [paragraph.strip("\n").replace("\n", " ") for paragraph in paragraphs if paragraph.strip()]
        return table_from_rows([{"text": text} for text in texts], name=file.name, text="text")

    def _hint(self, error: Exception) -> str:
        return f" It is not {self.encoding}; set 'encoding'." if isinstance(error, UnicodeError) else ""


def _find(path: str, *, base: Path) -> Path:
    """Return the file at ``path``; raises UserError where there is none that can be read."""
    try:
        file = base / Path(path).expanduser()
        kind = file.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"data file {_short(file)} does not exist{_other_files(file)}") from None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a user without a home
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"data file {_short(path)} cannot be opened: {why}.") from None
    if stat.S_ISDIR(kind):
        raise UserError(f"data file {_short(file)} is a folder. Name a file in it.")
    if not stat.S_ISREG(kind):
        raise UserError(f"data file {_short(file)} is a device or a pipe. Name a regular file.")
    return file


def _short(path: str | Path) -> str:
    """Return a path for a message: the end of a long one, and what no terminal can show escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 300 else f"... {text[-290:]}"


def _other_files(file: Path) -> str:
    """Say what is near a file that is missing."""
    if not file.parent.is_dir():
        return f": there is no folder {_short(file.parent)}. Relative paths start at the suite's folder."
    try:
        beside = [_short(other.name) for other, _ in zip(file.parent.iterdir(), range(_NEAR), strict=False)]
    except OSError:
        beside = []
    return "." + nearest(file.name, beside)


def _brief(error: Exception) -> str:
    """Return an error's text, cut where a library puts half of the file into it."""
    text = str(error).encode("utf-8", "backslashreplace").decode().rstrip(".")
    return text if len(text) <= 500 else f"{text[:490]} ..."


def _require_text(file: Path) -> None:
    """Raise ValueError where the file begins as one that is no text."""
    with file.open("rb") as stream:
        start = stream.read(8)
    if what := next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None):
        raise ValueError(f"it is {what}")


def _codec(encoding: str) -> str:
    try:
        "".encode(encoding)
    except LookupError:
        raise ValueError(f"there is no encoding '{encoding}'") from None
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


@contextmanager
def _cells_of(size: int) -> Iterator[None]:
    """Let csv read cells of up to ``size`` characters; its limit is the process's, so it is put back."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, min(size, 2**31 - 1)))  # the limit is a C long
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _record(header: list[str], *, cells: list[str], line: int) -> Row:
    if len(cells) != len(header):
        raise ValueError(f"line {line} has {len(cells)} columns, the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


def _json_object(line: str, *, number: int) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON ({error.msg}, character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError(f"line {number} is nested too deeply") from None
    except ValueError:
        raise ValueError(f"line {number} holds a number of too many digits") from None
    if not isinstance(value, dict):
        raise ValueError(f"line {number} is not a JSON object, as in {{'text': ..., 'label': ...}}")
    return value
