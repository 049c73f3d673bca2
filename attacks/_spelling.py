"""From a reading to what is claimed of a client."""

from __future__ import annotations

from typing import Any

from qlorabench.threats.claims import ClientTexts

from ._places import Pairs
from ._reading import Reading


def client_texts(client: int, reading: Reading, tokenizer: Any) -> ClientTexts:
    """Return the claim of ``reading``: its words and places, and the texts that are whole."""
    special = frozenset(int(token) for token in tokenizer.all_special_ids)
    sentences = [_text(pairs, tokenizer) for pairs in (*reading.updates, reading.places)]
    sentences += [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in reading.sentences]
    places = {*reading.places, *((token, i) for ids in reading.sentences for i, token in enumerate(ids))}
    return ClientTexts(
        client,
        tokens=reading.words - special,
        placed=frozenset((place, token) for token, place in places if token not in special),
        texts=tuple(dict.fromkeys(text for text in sentences if text)),
        note=reading.note,
    )


def spells(pairs: Pairs, tokenizer: Any) -> bool:
    """Tell whether ``pairs`` are one text, from the first to the last token."""
    tokens = [token for token, _ in sorted(pairs, key=lambda pair: pair[1])]
    ends = (getattr(tokenizer, "cls_token_id", None), getattr(tokenizer, "sep_token_id", None))
    one_each = sorted(place for _, place in pairs) == list(range(len(pairs)))
    return bool(tokens) and one_each and (tokens[0], tokens[-1]) == ends


def _text(pairs: Pairs, tokenizer: Any) -> str:
    """Return the text that ``pairs`` spell, "" if they do not."""
    if not spells(pairs, tokenizer):
        return ""
    tokens = [token for token, _ in sorted(pairs, key=lambda pair: pair[1])]
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
