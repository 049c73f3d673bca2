"""Text from elsewhere (messages, names, paths) made fit for a terminal."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that show nothing, or change how what follows is shown: controls, formats (bidi overrides and
isolates, zero-width characters), halves of surrogate pairs, separators of lines and paragraphs."""


def plain(text: str) -> str:
    """Return ``text`` in which nothing drives the terminal: what cannot be seen is written as an escape.

    An escape sequence would colour, move or delete what stands on the screen, a bidi override would reorder it, and a
    zero-width character would make two names look alike. Newlines are kept: whoever prints decides about them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def plain_line(text: str) -> str:
    """Return ``text`` as `plain` does, on one line: each run of white space becomes one space."""
    return plain(" ".join(text.split()))


def _visible(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
