"""How benchmarks print what they measured."""

from __future__ import annotations

from qlorabench.scoring.intervals import Interval


def percent(share: Interval) -> str:
    """Return a share with its interval in percent; without units there is none."""
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
