"""What became of a cell, and the rows of the journal that say so."""

from __future__ import annotations

from dataclasses import dataclass

from qlorabench.records.record import Record, Status
from qlorabench.scoring.score import Score
from qlorabench.suite.plan import Cell


@dataclass(frozen=True)
class Outcome:
    """What a cell gave."""

    status: Status
    scores: list[Score]
    seconds: float
    note: str = ""
    peak_bytes: int | None = None
    details: str = ""
    """Of a failure: everything that is known of it."""

    def records(self, cell: Cell, *, suite: str, key: str) -> list[Record]:
        """Return the rows of ``cell``, whose content key is ``key``; one without a number where it gave none."""
        scores = self.scores or [Score("none", None, headline=True, note=self.note)]
        return [
            Record(
                **cell.coordinates,
                suite=suite,
                status=self.status,
                metric=score.metric,
                value=score.value,
                low=score.low,
                high=score.high,
                n=score.n,
                control=score.control,
                leakage=score.leakage,
                leakage_low=score.leakage_low,
                leakage_high=score.leakage_high,
                validated=score.learned,  # of leakage nothing is learned: see `qlorabench.records.results`
                headline=score.headline,
                note=score.note,
                seconds=round(self.seconds, 3),
                key=key,
                peak_bytes=self.peak_bytes,
            )
            for score in scores
        ]
