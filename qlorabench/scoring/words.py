"""What a word is, in any script, and when two texts are the same.

Texts are compared as Unicode's NFKC_Casefold (Unicode Standard, section 3.13, R5): one form for what is written with
several code points, case folded, invisible characters (joiners, soft hyphens, variation selectors) left out. A word is
a run of letters and digits with the combining marks that follow them; everything else, underscores too, stands between
words. Of scripts that leave no space between words (Han, kana, Thai, Lao, Khmer, Burmese) each letter is a word, as
multilingual implementations of ROUGE and BLEU count ideographs. Of ASCII texts these are the words of the rouge_score
package without stemming.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = r"[\p{L}\p{N}]"
_WORD = regex.compile(
    rf"[{_LETTER}&&[{_UNSPACED}]]\p{{M}}*|(?:[{_LETTER}--[{_UNSPACED}]]\p{{M}}*)+",
    regex.V1,
)
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """Return the words of ``text`` in their order."""
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", folded))
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", folded.casefold())))


@lru_cache(maxsize=4096)
def characters(text: str) -> str:
    """Return the characters of ``text`` without white space: case, marks, punctuation and emoji stay as they are.

    The form is NFC, so that a letter is the same however its accents are encoded.
    """
    return "".join(unicodedata.normalize("NFC", text).split())
