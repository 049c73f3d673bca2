"""The row of the journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from qlorabench.scoring.score import Score

Kind = Literal["utility", "bandwidth", "leakage"]
Status = Literal["ok", "failed", "timeout", "unsupported"]


@dataclass(frozen=True)
class Record:
    """One measurement, flat. ``None`` is missing, with the reason in ``note``; it is never zero."""

    suite: str
    task: str
    system: str
    seed: int
    kind: Kind
    threat: str | None
    """Threat model, where the row is an attack's."""
    attack: str | None
    goal: str | None
    status: Status
    metric: str
    value: float | None
    low: float | None
    """Ends of the 95 % interval of ``value``."""
    high: float | None
    n: int | None
    """Units behind ``value``: examples, texts, tensors or messages."""
    control: float | None
    """The metric under the negative control; for accuracy the better of majority class and bare backbone."""
    leakage: float | None
    """Advantage over the control, in [0, 1]."""
    leakage_low: float | None
    leakage_high: float | None
    validated: bool | None
    """Leakage: whether the attack succeeded on the undefended twin. Utility: whether the system has learned."""
    headline: bool
    """Whether the leaderboard shows this row."""
    note: str
    seconds: float
    """Wall-clock time of the cell that the row belongs to. It and ``peak_bytes`` alone differ between two runs."""
    key: str
    """Content hash of everything that changes the row."""
    peak_bytes: int | None = None
    """Most resident memory of the worker on that cell, the shared backbone included; ``None`` where not measured."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as a flat JSON object."""
        return asdict(self)


def validated(score: Score, twin: Score | Record | None) -> bool | None:
    """Tell whether the same metric of the same attack leaks on the undefended twin; ``None`` without leakage."""
    if score.leakage is None:
        return None
    return bool(twin and twin.leakage_low is not None and twin.leakage_low > 0.0)
