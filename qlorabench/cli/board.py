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
    """Print the leaderboard of the journals in ``folders``; raises UserError where there is none.

    ``details`` adds every leakage row; CSV and JSON have these rows alone, so that they stay one document.
    """
    from rich.console import Console

    from qlorabench import report
    from qlorabench.records.leaderboard import leaderboard

    records = [record for folder in folders for record in _read(folder)]
    if format == "table":
        report.print_table(leaderboard(records), Console(highlight=False))
        if details:
            report.print_details(records, Console(highlight=False))
        return
    # a program reads one document; a page may hold both
    if not details or format == "markdown":
        print(report.render(leaderboard(records), format), end="")
    if details:
        print(("\n" if format == "markdown" else "") + report.render_details(records, format), end="")


def _read(folder: Path) -> list[Record]:
    path = folder / "records.jsonl"
    try:
        there, is_file = path.is_file(), folder.is_file()
    except OSError as error:  # a name too long, links in a circle
        raise UserError(f"no journal in {str(folder)[:200]!r}: {error.strerror}") from error
    if not there:
        what = f"{folder} is a file" if is_file else f"no journal at {path}"
        raise UserError(f"{what}. Give the folder that 'qlorabench run' wrote to.")
    return list(Journal(path).read())
