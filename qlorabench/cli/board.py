"""``qlorabench leaderboard``: a table from journals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from qlorabench import report


def print_board(folders: Sequence[Path], *, format: report.Format | Literal["table"], details: bool) -> None:
    """Print the leaderboard of the journals in ``folders``; raises UserError where one is missing or damaged."""
    from rich.console import Console

    from qlorabench import report
    from qlorabench.records.leaderboard import board_of
    from qlorabench.records.results import read_results

    results = [part for folder in folders for part in read_results(folder)]
    board = board_of(results)
    if format == "table":
        report.print_table(board, Console(highlight=False))
    else:
        print(report.render(board, format), end="")
    if details:
        report.print_details([record for part in results for record in part.records], Console(highlight=False))
