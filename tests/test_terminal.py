"""Text from anywhere is shown, and never obeyed."""

import pytest

from qlorabench.terminal import plain, plain_line


@pytest.mark.parametrize("text", ["words and 3.5 %", "Привет, мир", "日本語", "é", "[/data/x] [bold]", "a\nb", ""])
def test_what_can_be_seen_stays(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("bell\x07 back\x08 del\x7f", r"bell\x07 back\x08 del\x7f"),
        ("a\rb", r"a\x0db"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("\u2066isolate\u2069", r"\u2066isolate\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("half\ud800", r"half\ud800"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
    ],
)
def test_what_drives_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(plain(text)) == shown


def test_one_line_is_one_line() -> None:
    assert plain_line("first\n  second\tthird\x1b") == r"first second third\x1b"
