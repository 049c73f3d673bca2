"""One number with its interval, its control and the leakage that follows from both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qlorabench.scoring.intervals import Interval

NO_GAP = "no utility gap: nothing to protect"
"""Note of an adapter's recovery where clients hold a model as good as the server's."""
EXACT = "the broadcast is exact: every receiver holds the adapter"
"""Note of an adapter's recovery where nothing was withheld."""
SILENT = "nothing claimed"
"""Note of a reconstruction that names no word of any client."""
CAVEATS = {SILENT: "nothing claimed", NO_GAP: "no utility gap", EXACT: "exact broadcast"}
"""What a leaderboard says in a few words of a leakage with such a note."""


@dataclass(frozen=True)
class Score:
    """One metric of one claim (or of one system)."""

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Units behind the value."""
    control: float | None = None
    """The metric of the same claim on what was not in the view; for accuracy, of what needs no training."""
    leakage: float | None = None
    """Advantage over the control, in [0, 1]; ``None`` where the metric measures none."""
    leakage_low: float | None = None
    leakage_high: float | None = None
    headline: bool = False
    """Whether the leaderboard shows it."""
    note: str = ""
    learned: bool | None = None
    """Of utility: whether it is better than all that needs no training."""


def from_interval(metric: str, interval: Interval, *, note: str = "") -> Score:
    """Return the score of an estimate that has neither control nor leakage."""
    said = "; ".join(part for part in (note, interval.reason or "") if part)
    return Score(metric, interval.value, interval.low, interval.high, interval.n, note=said)


def against_control(metric: str, value: Interval, *, control: float | None, leak: Interval) -> Score:
    """Return the score of an estimate that has a control, and its leakage over it, cut to [0, 1]."""
    return replace(
        from_interval(metric, value),
        control=control,
        leakage=share(leak.value),
        leakage_low=share(leak.low),
        leakage_high=share(leak.high),
    )


def share(leakage: float | None) -> float | None:
    """Return ``leakage`` within [0, 1]; missing stays missing."""
    return None if leakage is None else min(max(leakage, 0.0), 1.0)
