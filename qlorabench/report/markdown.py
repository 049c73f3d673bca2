"""Leaderboards as GitHub markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qlorabench.records.board import Board, BoardRow, TaskBoard
from qlorabench.records.record import Record
from qlorabench.report._text import (
    NOTHING,
    by_task,
    bytes_text,
    detail_lines,
    epsilon_text,
    leak_lines,
    legend,
    reasons,
    title,
    utility_lines,
)
from qlorabench.terminal import plain_line

_COSTS = ("down / round", "up / round", "total", "epsilon")
_DETAILS = ("system, attack, seat", "metric", "value", "n", "leakage", "note")

_MARKUP = re.compile(r"[\\`*_|<>&~$]|(?<!\w)#|\[(?!-?[\d.]+, -?[\d.]+\])|\](?=[(\[:])")
"""What a backslash goes before. The brackets of an interval may stay, where no link can follow."""
_LINKS = re.compile(r":(?=//)|www(?=\.)|@|mailto:", re.IGNORECASE)
"""Where a link or a mention would be made of bare text, which a backslash does not prevent everywhere."""
_APART = "<!-- -->"
"""Shows nothing, and ends a bare link."""


def board_markdown(board: Board) -> str:
    """Return a table for each suite and task, with the legend at the end."""
    if not board.tasks:
        return f"{NOTHING}\n"
    parts = [f"### {_escape(title(task))}\n\n{_task(task)}" for task in board.tasks]
    missing = "".join(f"- {_escape(line)}\n" for line in reasons(board))
    reading = "".join(f"- {line}\n" for line in legend(board))
    return "\n".join(filter(None, (*parts, missing, reading)))


def details_markdown(records: Iterable[Record]) -> str:
    """Return a table of leakage rows for each suite and task."""
    parts = [
        f"### {_escape(heading)}\n\n" + _table(_DETAILS, [_detail(row) for row in rows])
        for heading, rows in by_task(records).items()
    ]
    return "\n".join(parts) or f"{NOTHING}\n"


def _task(task: TaskBoard) -> str:
    headings = (
        "system",
        f"{task.utility}, server",
        f"{task.utility}, client",
        *_COSTS,
        *(f"leakage: {goal}" for goal in task.goals),
    )
    return _table(headings, [_places(row, task) for row in task.rows])


def _places(row: BoardRow, task: TaskBoard) -> list[Sequence[str]]:
    utility, seeds = task.utility, len(task.seeds)
    return [
        [row.system],
        utility_lines(row.utility_server, utility, seeds=seeds),
        utility_lines(row.utility_client, utility, seeds=seeds),
        [bytes_text(row.bytes_down_client_round, seeds=seeds)],
        [bytes_text(row.bytes_up_client_round, seeds=seeds)],
        [bytes_text(row.bytes_total, seeds=seeds)],
        [epsilon_text(row.epsilon, seeds=seeds)],
        *(leak_lines(row.leaks[goal]) for goal in task.goals),
    ]


def _detail(record: Record) -> list[Sequence[str]]:
    return [*detail_lines(record), [record.note]]


def _table(headings: Sequence[str], rows: Sequence[Sequence[Sequence[str]]]) -> str:
    """Return a table whose places are lists of lines."""
    body = [[("<br>".join(map(_escape, lines))) for lines in row] for row in rows]
    lines = [headings, ["---"] * len(headings), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escape(text: str) -> str:
    """Return what a plug-in or a note says on one line, so that nothing of it is markup, a link, an image or HTML."""
    text = _MARKUP.sub(r"\\\g<0>", plain_line(text))
    return _LINKS.sub(rf"\g<0>{_APART}", text)
