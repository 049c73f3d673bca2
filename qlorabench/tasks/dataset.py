"""A labelled set of texts, and its seeded division into training pool, test rows and held-out rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlorabench.errors import UserError, nearest
from qlorabench.hashing import digest
from qlorabench.seeding import Seed

MOST_LABELS = 1000
"""Labels of a classification at most."""
FREE_LABELS = 20
"""Labels that a data set of any size may have."""
ROWS_A_LABEL = 5
"""Rows that a label needs on average where there are more labels than that; a column of texts has one or two."""
MOST_LABEL_CHARACTERS = 200
"""Characters of a label at most."""
_COLUMNS_SHOWN = 30
_COLUMNS_COMPARED = 1000

Indices = NDArray[np.int64]
"""Row numbers of a table, shape (rows,)."""


@dataclass(frozen=True)
class Table:
    """Texts with one label each; immutable, in the order of the source."""

    name: str
    """Name of the source, for messages and reports."""
    texts: tuple[str, ...]
    """One text a row, as the source holds it."""
    labels: tuple[int, ...]
    """One class index a row, into ``label_names``."""
    label_names: tuple[str, ...]
    """Names of the classes; a single one where the data set has no labels."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns, one value a row, by which rows can be given to clients (film, sender)."""
    dropped: int = 0
    """Rows of the source that were left out because the text, the label or the group was empty."""

    def __post_init__(self) -> None:
        for column in (self.labels, *self.groups.values()):
            if len(column) != len(self.texts):
                raise ValueError(f"table '{self.name}': a column of {len(column)} for {len(self.texts)} texts")
        if self.labels and not 0 <= min(self.labels) <= max(self.labels) < len(self.label_names):
            raise ValueError(f"table '{self.name}': a label lies outside of {self.label_names}")

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content (texts, labels, label names, groups; not the name), 64 hex digits."""
        groups = {name: list(values) for name, values in self.groups.items()}
        return digest([self.texts, self.labels, self.label_names, groups], length=64)

    @property
    def labelled(self) -> bool:
        """Whether the rows have labels."""
        return len(self.label_names) > 1

    @property
    def label_counts(self) -> tuple[int, ...]:
        """Rows of each class, in the order of ``label_names``."""
        counts = Counter(self.labels)
        return tuple(counts[label] for label in range(len(self.label_names)))

    def take(self, rows: Iterable[int]) -> Table:
        """Return the table of the given rows, in the given order."""
        kept = [int(row) for row in rows]
        return replace(
            self,
            texts=tuple(self.texts[row] for row in kept),
            labels=tuple(self.labels[row] for row in kept),
            groups={name: tuple(values[row] for row in kept) for name, values in self.groups.items()},
        )

    def deduplicated(self, keys: Sequence[Hashable] | None = None) -> tuple[Table, Repeats]:
        """Return the table without rows that repeat an earlier one's key, and what that removed.

        The keys are one a row; without them, the texts as they stand, white space stripped from both ends. The
        first row of a key stays, whatever the labels of the others. Without this step a text could be member and
        non-member at once.
        """
        first: dict[Hashable, int] = {}
        conflicting = 0
        for row, key in enumerate([text.strip() for text in self.texts] if keys is None else keys):
            stays = first.setdefault(key, row)
            conflicting += self.labels[stays] != self.labels[row]
        return self.take(first.values()), Repeats(tuple(first.values()), len(self) - len(first), conflicting)


@dataclass(frozen=True)
class Repeats:
    """What `Table.deduplicated` removed."""

    kept: tuple[int, ...]
    """Rows that stay, in their order."""
    removed: int
    """Rows that repeat an earlier one."""
    conflicting: int
    """Those of them whose label is another than that of the row that stays."""


@dataclass(frozen=True)
class Split:
    """Disjoint rows of one table, drawn at random from one distribution."""

    train: Indices
    """Pool from which the clients' rows are taken."""
    test: Indices
    """Rows that measure accuracy."""
    holdout: Indices
    """Non-members: rows that nobody trains on and that accuracy is not measured on."""


def split(table: Table, *, clients_rows: int | None, test_rows: int, holdout_rows: int, seed: Seed) -> Split:
    """Draw disjoint rows for testing, for non-members and for the clients together.

    ``clients_rows`` is the size of the training pool; ``None`` takes all that is left. The draw is uniform:
    neither stratified by label nor kept apart by group, so that members and non-members have one
    distribution, and the rows of one group (a film) can fall on both sides. Test and held-out rows do not
    change with ``clients_rows``. Remove duplicates from the table first.
    """
    wanted = {
        "clients": 1 if clients_rows is None else clients_rows,
        "test": test_rows,
        "held out": holdout_rows,
    }
    if min(wanted.values()) < 0:
        raise ValueError(f"rows cannot be negative: {wanted}")
    if sum(wanted.values()) > len(table):
        asked = ", ".join(f"{rows} {name}" for name, rows in wanted.items())
        raise UserError(
            f"data set '{table.name}' has {len(table)} rows; {sum(wanted.values())} are asked for ({asked}). "
            "Ask for fewer rows or clients, or take a larger data set."
        )
    order = seed.child("split").numpy().permutation(len(table)).astype(np.int64)
    test, holdout, rest = np.split(order, [test_rows, test_rows + holdout_rows])
    return Split(train=rest[:clients_rows], test=test, holdout=holdout)


def table_from_rows(
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str,
    text: str,
    label: str | None = None,
    group: str | None = None,
    label_order: Sequence[str] | None = None,
) -> Table:
    """Build a table from the named columns of ``rows``, or say which row cannot be used.

    Rows in which a named column is empty or missing are left out and counted in ``Table.dropped``. Labels
    are text, whole numbers or true/false, of one kind; sorted, they get the indices 0, 1, ..., unless
    ``label_order`` names them. ``name`` is told in messages.
    """
    used = [column for column in (text, label, group) if column is not None]
    kept = [(i, row) for i, row in enumerate(rows, start=1) if not any(_is_empty(row.get(c)) for c in used)]
    texts = tuple(_text(row[text], where=f"{name}, row {i}: column {shown(text)}") for i, row in kept)
    groups = (
        {group: tuple(_group(row[group], where=f"{name}, row {i}: column {shown(group)}") for i, row in kept)}
        if group
        else {}
    )
    dropped = len(rows) - len(kept)
    if label is None:
        return Table(name, texts, (0,) * len(texts), ("unlabelled",), groups, dropped)
    labels = _labels([(i, row[label]) for i, row in kept], name=name, column=label)
    found = sorted(set(labels))
    if len(found) < 2:
        raise UserError(_one_label(name, label=label, found=found, rows=len(kept), dropped=dropped))
    _require_classes(labels, found=found, where=f"{name}: column {shown(label)}")
    names = tuple(label_order) if label_order else tuple(str(value) for value in found)
    index = {value: i for i, value in enumerate(names)}
    return Table(name, texts, tuple(index[str(value)] for value in labels), names, groups, dropped)


def require_columns(wanted: Iterable[str], *, columns: Sequence[str], where: str) -> None:
    """Raise UserError unless every wanted column is there; say all that are missing at once."""
    missing = [column for column in wanted if column not in columns]
    if missing:
        names = [shown(column)[1:-1] for column in columns[:_COLUMNS_COMPARED]]
        said = " ".join(f"There is no column {shown(column)}.{nearest(column, names)}" for column in missing)
        there = ", ".join(names[:_COLUMNS_SHOWN])
        more = f" and {len(columns) - _COLUMNS_SHOWN} more" if len(columns) > _COLUMNS_SHOWN else ""
        raise UserError(f"{where}: {said} Columns: {there or 'none; the file is empty'}{more}")


def shown(value: object) -> str:
    """Return a value of a data set for a message: in quotes, short, with what a terminal cannot show escaped."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:200])
    return f"'{text}'" if len(text) <= 60 else f"'{text[:56]} ...'"


def _is_empty(value: object) -> bool:
    """Whether there is no value: nothing, white space, or what pandas writes for a missing number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: object, *, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} holds {type(value).__name__}, not text. Name the column that holds the texts.")
    return _whole(value, where=where)


def _whole(value: str, *, where: str) -> str:
    """Return ``value``; raises UserError where it is no valid Unicode, which can be neither hashed nor written."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half a surrogate pair at character {error.start}. Mend it.") from None
    return value


def _group(value: object, *, where: str) -> str:
    if isinstance(value, list | dict):
        raise UserError(f"{where} holds {type(value).__name__}; a group is one value. Name another column.")
    return _whole(str(value).strip(), where=where)


def _labels(numbered: Sequence[tuple[int, Any]], *, name: str, column: str) -> list[Any]:
    """Return the labels with white space stripped; all of them must be of one usable kind.

    Whole numbers that were written as 0.0 and 1.0, as pandas does where a label is missing, are whole numbers.
    """
    where = f"{name}: column {shown(column)}"
    values = [int(v) if isinstance(v, float) and v.is_integer() else v for _, v in numbered]
    kinds = {type(value).__name__ for value in values}
    if len(kinds) > 1 or not kinds <= {"str", "int", "bool"}:
        raise UserError(
            f"{where} holds {' and '.join(sorted(kinds))}; labels may be text, whole numbers or true/false, "
            "and of one kind only. Name another column, or convert this one."
        )
    for (row, _), value in zip(numbered, values, strict=True):
        if isinstance(value, str):
            _whole(value, where=f"{name}, row {row}: column {shown(column)}")
    return [value.strip() if isinstance(value, str) else value for value in values]


def _require_classes(labels: Sequence[Any], *, found: Sequence[Any], where: str) -> None:
    """Raise UserError where a column is no column of labels, but of texts, names or numbers."""
    few = len(found) > FREE_LABELS and len(labels) < ROWS_A_LABEL * len(found)
    if few or len(found) > MOST_LABELS:
        raise UserError(
            f"{where} holds {len(found):,} distinct labels in {len(labels):,} rows; it may be no column of labels. "
            f"Allowed are up to {MOST_LABELS:,}, and beyond {FREE_LABELS} of them at least {ROWS_A_LABEL} rows a label "
            "on average. Name another column, or put labels together."
        )
    if (longest := max(len(str(value)) for value in found)) > MOST_LABEL_CHARACTERS:
        raise UserError(
            f"{where} holds a label of {longest:,} characters; {MOST_LABEL_CHARACTERS} are the most. It may hold "
            "texts: name the column of the labels."
        )


def _one_label(name: str, *, label: str, found: Sequence[Any], rows: int, dropped: int) -> str:
    has = f"only {shown(found[0])}" if rows else "nothing"
    left_out = f" ({dropped} rows were left out because a column was empty)" if dropped else ""
    return (
        f"{name}: column {shown(label)} holds {has} in {rows} rows{left_out}. A classification needs at least two "
        "labels; language modeling needs none, and no 'label'."
    )
