"""What a tokenizer makes of texts: known tokens, cut texts, and a hash of both."""

from typing import Any

import numpy as np
import pytest

from qlorabench.tasks.encoding import Encoded, cut_rows, encode, encode_causal, encoding_sha256, known_tokens
from qlorabench.tasks.toy import toy_tokenizer
from qlorabench.tasks.toy_lm import toy_lm_tokenizer

TEXTS = ["the film is dull", "the сюжет is тонок", "сюжет", "", "bold", "bold"]
LABELS = [0] * len(TEXTS)


def encoded(tokenizer: Any, *, causal: bool = False, length: int = 12) -> Encoded:
    return (encode_causal if causal else encode)(tokenizer, TEXTS, LABELS, max_length=length)


@pytest.mark.parametrize("causal", [False, True])
def test_tokens_of_a_text_are_counted_without_those_around_it(causal: bool) -> None:
    tokenizer = toy_lm_tokenizer() if causal else toy_tokenizer()
    own, known = known_tokens(tokenizer, encoded(tokenizer, causal=causal))
    assert own.tolist() == [4, 4, 1, 0, 1, 1]
    assert known.tolist() == [4, 2, 0, 0, 1, 1]


def test_a_tokenizer_whose_unknown_token_is_its_end_token_knows_what_it_splits() -> None:
    tokenizer = toy_lm_tokenizer()
    tokenizer.unk_token = tokenizer.eos_token
    data = encoded(tokenizer, causal=True)
    whole = tuple(np.where(ids == tokenizer.convert_tokens_to_ids("[UNK]"), 9, ids) for ids in data.ids)
    own, known = known_tokens(tokenizer, Encoded(whole, data.labels, data.lengths, data.pad))
    assert own.tolist() == known.tolist() == [4, 4, 1, 0, 1, 1]


def test_no_text_has_no_token() -> None:
    tokenizer = toy_tokenizer()
    own, known = known_tokens(tokenizer, encode(tokenizer, [], [], max_length=8))
    assert own.shape == known.shape == (0,)


@pytest.mark.parametrize("causal", [False, True])
def test_a_text_is_cut_where_a_token_of_it_is_lost(causal: bool) -> None:
    tokenizer = toy_lm_tokenizer() if causal else toy_tokenizer()
    encoder = encode_causal if causal else encode
    texts = ["the film is", "the film is dull", "the film is dull today", "bold"]  # room for four of their words
    made = encoder(tokenizer, texts, [0] * 4, max_length=6)
    asked = []

    def longer(rows: np.ndarray) -> Encoded:
        asked.extend(rows.tolist())
        return encoder(tokenizer, [texts[row] for row in rows], [0] * len(rows), max_length=7)

    assert cut_rows(made, longer, max_length=6).tolist() == [False, False, True, False]
    assert asked == [1, 2]


def test_another_reading_of_the_same_ids_is_another_tokenizer() -> None:
    plain, grown, renamed = toy_tokenizer(), toy_tokenizer(), toy_tokenizer()
    data = encoded(plain)
    grown.add_tokens(["novel"])
    renamed.add_special_tokens({"bos_token": "[CLS]"})
    assert len({encoding_sha256(tokenizer, data) for tokenizer in (plain, grown, renamed)}) == 3
    plain(["the"], truncation=True, max_length=4)  # what was asked of it before changes nothing
    assert encoding_sha256(plain, data) == encoding_sha256(toy_tokenizer(), data)


def test_the_hash_follows_every_id() -> None:
    tokenizer = toy_tokenizer()
    assert encoding_sha256(tokenizer, encoded(tokenizer)) != encoding_sha256(tokenizer, encoded(tokenizer, length=4))


def test_tokens_that_are_no_text_have_a_hash() -> None:
    class Characters:
        """As much of a tokenizer over code points as the hash asks of it."""

        unk_token_id = pad_token_id = cls_token_id = sep_token_id = bos_token_id = eos_token_id = mask_token_id = None

        def get_vocab(self) -> dict[str, int]:
            return {chr(i): i for i in (65, 0xD800, 0x1F600)}

    assert len(encoding_sha256(Characters(), encoded(toy_tokenizer()))) == 64
