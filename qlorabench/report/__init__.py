"""Leaderboards and their details, written for a terminal, for a page and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from qlorabench.records.board import Board
from qlorabench.records.leaderboard import details
from qlorabench.records.record import Record
from qlorabench.report.export import board_csv, board_json, details_csv, details_json
from qlorabench.report.markdown import board_markdown, details_markdown
from qlorabench.report.table import print_details, print_table

__all__ = ["Format", "print_details", "print_table", "render", "render_details"]

Format = Literal["markdown", "csv", "json"]


def render(board: Board, format: Format) -> str:
    """Return a leaderboard as text that ends in a newline."""
    return {"markdown": board_markdown, "csv": board_csv, "json": board_json}[format](board)


def render_details(records: Iterable[Record], format: Format) -> str:
    """Return the leakage rows among ``records`` as text that ends in a newline."""
    return {"markdown": details_markdown, "csv": details_csv, "json": details_json}[format](details(records))
