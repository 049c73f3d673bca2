"""``qlorabench leaderboard``: a table from journals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qlorabench.errors import UserError
from qlorabench.records.journal import Journal
from qlorabench.records.record import Record

if TYPE_CHECKING:
    from qlorabench import report


def print_board(folders: Sequence[Path], *, format: report.Format | Literal["table"], details: bool) -> None:
    """Print the leaderboard of the journals in ``folders``; raises UserError where there is none."""
    from rich.console import Console

    from qlorabench import report
    from qlorabench.records.leaderboard import leaderboard

    records = [record for folder in folders for record in _read(folder)]
    if format == "table":
        report.print_table(leaderboard(records), Console(highlight=False))
    else:
        print(report.render(leaderboard(records), format), end="")
    if details:
        report.print_details(records, Console(highlight=False))


def _read(folder: Path) -> list[Record]:
    path = folder / "records.jsonl"
    if not path.is_file():
        raise UserError(f"no journal at {path}. Give the folder that 'qlorabench run' wrote to.")
    return list(Journal(path).read())
