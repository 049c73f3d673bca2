"""``qlorabench leaderboard``: a table from journals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from qlorabench import report


def print_board(folders: Sequence[Path], *, format: report.Format | Literal["table"], details: bool) -> None:
    """Print the leaderboard of the journals in ``folders``; raises UserError where one is missing or damaged.

    ``details`` adds every leakage row; CSV and JSON have these rows alone, so that they stay one document.
    """
    from rich.console import Console

    from qlorabench import report
    from qlorabench.records.leaderboard import board_of
    from qlorabench.records.results import read_results

    results = [part for folder in folders for part in read_results(folder)]
    records = [record for part in results for record in part.records]
    board = board_of(results)
    if format == "table":
        report.print_table(board, Console(highlight=False))
        if details:
            report.print_details(records, Console(highlight=False))
        return
    # a program reads one document; a page may hold both
    if not details or format == "markdown":
        print(report.render(board, format), end="")
    if details:
        print(("\n" if format == "markdown" else "") + report.render_details(records, format), end="")
