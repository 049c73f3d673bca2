"""From a reading to what is claimed of a client."""

from __future__ import annotations

from typing import Any

from qlorabench.threats.claims import ClientTexts

from ._places import Pairs
from ._reading import Reading


def client_texts(client: int, reading: Reading, tokenizer: Any) -> ClientTexts:
    """Return the claim of ``reading``: its words and places, and the texts that are whole."""
    special = frozenset(int(token) for token in tokenizer.all_special_ids)
    sentences = [_sentence(pairs, tokenizer) for pairs in (*reading.updates, reading.places)]
    sentences += [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in reading.sentences]
    places = {*reading.places, *((token, i) for ids in reading.sentences for i, token in enumerate(ids))}
    return ClientTexts(
        client,
        tokens=reading.words - special,
        placed=frozenset((place, token) for token, place in places if token not in special),
        texts=tuple(dict.fromkeys(text for text in sentences if text)),
        note=reading.note,
    )


def _sentence(pairs: Pairs, tokenizer: Any) -> str:
    """Return the text that ``pairs`` spell if they are one sentence, from the first to the last token; else ""."""
    tokens = [token for token, _ in sorted(pairs, key=lambda pair: pair[1])]
    ends = (getattr(tokenizer, "cls_token_id", None), getattr(tokenizer, "sep_token_id", None))
    one_each = sorted(place for _, place in pairs) == list(range(len(pairs)))
    if not tokens or not one_each or (tokens[0], tokens[-1]) != ends:
        return ""
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
