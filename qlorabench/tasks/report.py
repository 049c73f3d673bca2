"""What became of a data set on its way to the clients: said to the user, and kept in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MANY_UNKNOWN = 0.2
"""Share of [UNK] among the tokens above which a run's numbers say little about its texts."""
MANY_CUT = 0.5
"""Share of cut texts above which a run is about the beginnings of texts."""

SAID = 8
"""Names in a list, and lines on seeds, beyond which the rest is counted."""


@dataclass(frozen=True)
class TokenReport:
    """What the tokenizer made of the texts."""

    max_length: int
    """Tokens that are kept of a text at most."""
    blank: int
    """Texts left out because no token is left of them but [UNK] and special ones."""
    alike: int
    """Texts left out because their token ids are those of an earlier one: the model cannot tell them apart."""
    conflicting: int
    """Those of them whose label is another than that of the text that stays."""
    unknown: float
    """Share of [UNK] among the tokens of the texts before any was left out, 0 to 1."""
    cut: float
    """Share of the used texts that are longer than ``max_length`` tokens, 0 to 1."""


@dataclass(frozen=True)
class DataReport:
    """Rows read, left out and dealt."""

    name: str
    """Name of the source."""
    read: int = 0
    """Rows of the source."""
    empty: int = 0
    """Rows left out because the text, the label or the group was empty."""
    repeated: int = 0
    """Rows left out because their text had occurred before, but for white space at its ends."""
    conflicting: int = 0
    """Those of the repeated rows whose label is another than that of the row that stays."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Used rows of each label; empty where the data set has no labels."""
    tokens: TokenReport | None = None
    """``None`` where no tokenizer was there to ask."""
    asked: tuple[int, ...] = ()
    """Rows that each client is to have."""
    got: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Rows that each client has, by seed; without copies of canaries."""
    unheld: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Labels of which no client holds a row, by seed; only seeds where there are any."""
    unchecked: str | None = None
    """Why the data were not looked at; nothing else is known then."""

    @property
    def used(self) -> int:
        """Rows that are left to be dealt."""
        later = self.tokens.blank + self.tokens.alike if self.tokens else 0
        return self.read - self.empty - self.repeated - later

    @property
    def lost(self) -> str:
        """A sentence on what was left out and how to lose less, for a message that rows are missing; may be empty."""
        if not (parts := self._left_out()):
            return ""
        advice = " A larger data.max_length keeps more texts apart." if self.tokens and self.tokens.alike else ""
        return f" Of {self.read:,} rows that were read, these were left out: {'; '.join(parts)}.{advice}"

    def lines(self) -> list[str]:
        """Return what a user should know, one line each; nothing where all rows are used as they stand."""
        if self.unchecked:
            return [f"data not checked: {self.unchecked}"]
        said = []
        if parts := self._left_out():
            said.append(f"{self.used:,} of {self.read:,} rows are used; left out: {'; '.join(parts)}")
        if self.tokens:
            said += _shares(self.tokens)
        return said + self._by_seed()

    def facts(self) -> dict[str, Any]:
        """Return the same in full, as JSON."""
        if self.unchecked:
            return {"unchecked": self.unchecked}
        facts: dict[str, Any] = {
            "rows_read": self.read,
            "rows_used": self.used,
            "empty_removed": self.empty,
            "duplicates_removed": self.repeated,
            "duplicates_of_another_label": self.conflicting,
            "rows_by_label": dict(self.labels),
            "rows_asked": list(self.asked),
            "rows_got_by_seed": {str(seed): list(rows) for seed, rows in self.got.items()},
            "labels_without_client_by_seed": {str(seed): list(names) for seed, names in self.unheld.items()},
        }
        if self.tokens:
            facts |= {
                "blank_removed": self.tokens.blank,
                "alike_removed": self.tokens.alike,
                "alike_of_another_label": self.tokens.conflicting,
                "unknown_tokens": round(self.tokens.unknown, 4),
                "cut_texts": round(self.tokens.cut, 4),
            }
        return facts

    def _by_seed(self) -> list[str]:
        said = []
        for seed, rows in self.got.items():
            if short := _short(rows, self.asked):
                said.append(f"seed {seed}: {short}")
            if names := self.unheld.get(seed):
                said.append(f"seed {seed}: no client holds a text of {_list(names)}")
        more = len(said) - SAID
        return [*said[:SAID], f"and {more} more such lines, on other seeds"] if more > 0 else said

    def _left_out(self) -> list[str]:
        tokens = self.tokens or TokenReport(0, 0, 0, 0, 0.0, 0.0)
        kinds = [
            (self.empty, "with an empty text, label or group", 0),
            (self.repeated, "that repeat a text", self.conflicting),
            (tokens.blank, "of which the tokenizer knows no token", 0),
            (
                tokens.alike,
                f"that the model cannot tell from another (the same token ids, of which {tokens.max_length} are kept)",
                tokens.conflicting,
            ),
        ]
        return [f"{count:,} {why}{_otherwise(other)}" for count, why, other in kinds if count]


def _otherwise(conflicting: int) -> str:
    return f", {conflicting:,} of them with another label than the one that stays" if conflicting else ""


def _shares(tokens: TokenReport) -> list[str]:
    said = []
    if tokens.unknown:
        warning = "; what is measured says little about such texts: is the backbone made for their language?"
        many = tokens.unknown > MANY_UNKNOWN
        said.append(f"{_percent(tokens.unknown)} of the tokens are [UNK]{warning if many else ''}")
    if tokens.cut:
        warning = "; most texts are known by their beginning alone: a larger data.max_length keeps more"
        many = tokens.cut > MANY_CUT
        said.append(
            f"{_percent(tokens.cut)} of the texts are cut to {tokens.max_length} tokens{warning if many else ''}"
        )
    return said


def _percent(share: float) -> str:
    return "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _short(got: Sequence[int], asked: Sequence[int]) -> str:
    """Say which clients have fewer rows than were asked for; the first of them by number."""
    short = [(client, n, want) for client, (n, want) in enumerate(zip(got, asked, strict=True)) if n < want]
    if not short:
        return ""
    named = ", ".join(f"client {client} has {n} of {want}" for client, n, want in short[:SAID])
    more = f" and {len(short) - SAID} more" if len(short) > SAID else ""
    return f"{len(short)} of {len(asked)} clients have fewer rows than asked for: {named}{more}"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SAID])
    return shown + (f" and {len(names) - SAID} more labels" if len(names) > SAID else "")
