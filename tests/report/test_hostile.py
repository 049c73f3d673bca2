"""Names, notes and labels come from anywhere: in no format are they anything but text."""

import csv
import io
import json
import re

import pytest
from rich.console import Console

from qlorabench.records.leaderboard import leaderboard
from qlorabench.report import print_details, print_table, render, render_details
from tests.records.rows import costs, leak, lost

HOSTILE = {
    "escape": "a\x1b[2J\x1b]0;title\x07b",
    "bidi": "abc\u202etxt.exe\u2066",
    "newline": "first\n| x | y |\n# heading",
    "carriage": "good\rbad",
    "pipe": "a|b",
    "image": "![x](http://evil.example/i.png)",
    "link": "[0.1, 0.2](https://evil.example) [a][b]",
    "bare": "see www.evil.example or HTTP://evil.example, mail a@evil.example, @somebody",
    "html": "<script>alert(1)</script><img src=x>&lt;b&gt;",
    "formula": "=cmd|'/c calc'!A1",
    "plus": "+1+cmd",
    "minus": "-2+3",
    "at": "@SUM(A1)",
    "tab": "\t=1+1",
    "space": " =1+1",
    "wide": "＝1+1",
    "markup": "[bold red]x[/] [/data/x] :boom:",
    "surrogate": "half \udc80 pair",
    "code": "`x` *y* _z_ ~~s~~ $m$ \\",
    "delete": "a\x7fb\x9bc",
}


def records(text: str) -> list:
    return [
        *costs(text),
        leak(0.31, 0.2, 0.42, system=text, attack=text, threat="server"),
        leak(0.31, 0.2, 0.42, system=text, attack="other", note=text),
        lost("failed", system=text, attack=f"x{text}", note=text),
    ]


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def text(request: pytest.FixtureRequest) -> str:
    return request.param


def drives_a_terminal(shown: str) -> str | None:
    found = re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff]", shown)
    return found and repr(found[0])


def test_on_a_terminal_nothing_drives_it_and_nothing_is_markup(text: str) -> None:
    console = Console(file=io.StringIO(), width=112, color_system=None)
    print_table(leaderboard(records(text)), console)
    print_details(records(text), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert drives_a_terminal(shown) is None
    assert max(map(len, shown.splitlines())) <= 112
    if text == HOSTILE["markup"]:
        assert "[/data/x]" in shown
        assert ":boom:" in shown


@pytest.mark.parametrize(
    "render_", [lambda rows: render(leaderboard(rows), "markdown"), lambda rows: render_details(rows, "markdown")]
)
def test_in_markdown_tables_keep_their_shape_and_nothing_is_a_link(text: str, render_) -> None:
    page = render_(records(text))
    assert drives_a_terminal(page) is None
    plain = re.sub(r"\\[!-/:-@\[-`{-~]", "", page)  # what is escaped is text
    columns = {line.count("|") for line in plain.splitlines() if "|" in line}
    assert len(columns) == 1, "a table has as many places in each of its rows"
    assert not re.search(r"\]\(|\]\[|\]:|!\[", plain)
    assert not re.search(r"<(?!br>|!-- -->)", plain)
    assert not re.search(r"https?://|www\.|@\w|&\w+;", plain, re.IGNORECASE)
    assert not re.search(r"[`*~$]", plain)
    assert all(re.match(r"\||###|- |$", line) for line in plain.splitlines()), "no line is anybody else's"


@pytest.mark.parametrize(
    "render_", [lambda rows: render(leaderboard(rows), "csv"), lambda rows: render_details(rows, "csv")]
)
def test_in_csv_no_text_is_a_formula_and_no_number_is_touched(text: str, render_) -> None:
    rows = list(csv.DictReader(io.StringIO(render_(records(text)))))
    assert rows
    for row in rows:
        for name, value in row.items():
            assert None not in (name, value)
            assert drives_a_terminal(value.replace("\n", "")) is None
            assert not re.match(r"\s*[=+\-@＝＋－＠]", value), value
    assert {row.get("seed", "0") for row in rows} == {"0"}


def test_negative_numbers_stay_numbers_in_csv() -> None:
    rows = [leak(0.0, 0.0, 0.1, value=-1.5, control=-2.0)]
    (row,) = csv.DictReader(io.StringIO(render_details(rows, "csv")))
    assert (row["value"], row["control"]) == ("-1.5", "-2.0")


@pytest.mark.parametrize(
    "render_", [lambda rows: render(leaderboard(rows), "json"), lambda rows: render_details(rows, "json")]
)
def test_json_is_ascii_and_reads_back_as_it_was(text: str, render_) -> None:
    written = render_(records(text))
    assert written.isascii()
    assert drives_a_terminal(written.replace("\n", "")) is None
    assert text in strings(json.loads(written))


def strings(value: object) -> set[str]:
    """Every text inside of a JSON value."""
    if isinstance(value, str):
        return {value}
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return {text for part in inside for text in strings(part)}


def test_an_interval_keeps_its_brackets_in_markdown() -> None:
    assert "0.31 [0.20, 0.42]" in render(leaderboard(records("x")), "markdown")
