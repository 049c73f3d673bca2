"""The row of the journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from qlorabench.records.board import GOALS

Kind = Literal["utility", "bandwidth", "leakage"]
Status = Literal["ok", "failed", "timeout", "unsupported"]

Name: TypeAlias = Annotated[str, Field(strict=True, min_length=1)]
Text: TypeAlias = Annotated[str, Field(strict=True)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1)]

_SLACK = 1e-9
"""By how much the ends of an interval may be the wrong way round: the rounding of floats."""


@dataclass(frozen=True)
class Record:
    """One measurement, flat. ``None`` is missing, with the reason in ``note``; it is never zero."""

    suite: Name
    task: Name
    system: Name
    seed: Count
    kind: Kind
    threat: Name | None
    """Threat model, where the row is an attack's."""
    attack: Name | None
    goal: Name | None
    status: Status
    metric: Name
    value: Number | None
    low: Number | None
    """Ends of the 95 % interval of ``value``."""
    high: Number | None
    n: Count | None
    """Units behind ``value``: examples, texts, tensors or messages."""
    control: Number | None
    """The metric under the negative control; for accuracy the better of majority class and bare backbone."""
    leakage: Share | None
    """Advantage over the control, in [0, 1]."""
    leakage_low: Share | None
    leakage_high: Share | None
    validated: Flag | None
    """Utility: whether the system has learned. Leakage: whether the same metric of the same attack leaks on the
    undefended twin with the same seed; it is found when a folder is read, as the twin may be measured later, and
    stands as ``None`` in the journal."""
    headline: Flag
    """Whether the leaderboard shows this row."""
    note: Text
    seconds: Annotated[Number, Field(ge=0)]
    """Wall-clock time of the cell that the row belongs to. It and ``peak_bytes`` alone differ between two runs."""
    key: Name
    """Content hash of everything that changes the row."""
    peak_bytes: Count | None = None
    """Most resident memory of the worker on that cell, the shared backbone included; ``None`` where not measured."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as a flat JSON object."""
        return asdict(self)


def contradiction(record: Record) -> str | None:
    """Say what cannot be of a record whose every field is in range for itself, else ``None``."""
    named = (record.threat, record.attack, record.goal)
    if any((name is None) != (record.kind != "leakage") for name in named):
        return f"threat, attack and goal of a {record.kind} row are {named}"
    if record.goal is not None and record.goal not in GOALS:
        return f"goal: '{record.goal}' is none of {', '.join(GOALS)}"
    for what, low, high in (
        ("low", record.low, record.high),
        ("leakage_low", record.leakage_low, record.leakage_high),
    ):
        if low is not None and high is not None and low > high + _SLACK:
            return f"{what}: {low:g} is above the other end, {high:g}"
    return None
