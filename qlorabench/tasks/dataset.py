"""A labelled set of texts, and its seeded division into training pool, test rows and held-out rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlorabench.errors import UserError
from qlorabench.hashing import digest
from qlorabench.seeding import Seed

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
    """Names of the classes."""
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

    def deduplicated(self) -> tuple[Table, int]:
        """Return the table without repeated texts, and how many rows that removed.

        Texts are compared after white space is stripped from both ends, whatever their labels; the first
        one stays. Without this step a text could be member and non-member at once.
        """
        first: dict[str, int] = {}
        for row, text in enumerate(self.texts):
            first.setdefault(text.strip(), row)
        return self.take(first.values()), len(self) - len(first)


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
    label: str,
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
    labels = _labels([row[label] for _, row in kept], where=f"{name}: column '{label}'")
    names = tuple(label_order) if label_order else tuple(str(value) for value in sorted(set(labels)))
    if len(set(labels)) < 2:
        raise UserError(_one_label(name, label=label, found=names, rows=len(kept), dropped=len(rows) - len(kept)))
    index = {value: i for i, value in enumerate(names)}
    return Table(
        name=name,
        texts=tuple(_text(row[text], where=f"{name}, row {i}: column '{text}'") for i, row in kept),
        labels=tuple(index[str(value)] for value in labels),
        label_names=names,
        groups={group: tuple(str(row[group]).strip() for _, row in kept)} if group else {},
        dropped=len(rows) - len(kept),
    )


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: object, *, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} holds {type(value).__name__}, not text. Name the column that holds the texts.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half a surrogate pair at character {error.start}. Mend it.") from None
    return value


def _labels(values: Sequence[Any], *, where: str) -> list[Any]:
    """Return the labels with white space stripped; all of them must be of one usable kind."""
    kinds = {type(value).__name__ for value in values}
    if len(kinds) > 1 or not kinds <= {"str", "int", "bool"}:
        raise UserError(
            f"{where} holds {' and '.join(sorted(kinds))}; labels may be text, whole numbers or true/false, "
            "and of one kind only. Name another column, or convert this one."
        )
    return [value.strip() if isinstance(value, str) else value for value in values]


def _one_label(name: str, *, label: str, found: Sequence[str], rows: int, dropped: int) -> str:
    has = f"only '{found[0]}'" if rows else "nothing"
    left_out = f" ({dropped} rows were left out because a column was empty)" if dropped else ""
    return f"{name}: column '{label}' holds {has} in {rows} rows{left_out}. A task needs at least two labels."
