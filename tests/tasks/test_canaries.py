import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.tasks.canaries import FIRST_NAMES, LAST_NAMES, TEMPLATES, CanaryConfig, draw_canaries
from qlorabench.tasks.encoding import encode_texts
from qlorabench.tasks.toy_lm import toy_lm_tokenizer

TOKENIZER = toy_lm_tokenizer()


def draw(*, clients=4, seed=0, tokenizer=TOKENIZER, **changes):
    return draw_canaries(CanaryConfig(**changes), clients=clients, tokenizer=tokenizer, seed=Seed(seed))


@given(
    count=st.integers(1, 10).map(lambda n: 2 * n),
    clients=st.integers(1, 5),
    repetitions=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_half_is_inserted_and_dealt_in_turn_past_the_first_client(count, clients, repetitions, seed):
    config = CanaryConfig(count=count, repetitions=repetitions, references=3)
    canaries = draw_canaries(config, clients=clients, tokenizer=TOKENIZER, seed=Seed(seed))
    homes = [c.client for c in canaries if c.inserted]
    assert len(canaries) == count
    assert len(homes) == count // 2
    assert all(c.client is None for c in canaries if not c.inserted)
    held = [homes.count(client) for client in range(clients)]
    assert sum(held) == count // 2
    if clients > 1:
        assert held[0] == 0
        assert max(held[1:]) - min(held[1:]) <= 1
    assert config.copies(clients) == [n * repetitions for n in held]


def test_prompts_are_distinct_and_say_nothing_of_their_fate():
    canaries = draw(count=200, references=1)
    assert len({c.prompt for c in canaries}) == 200
    assert len({c.prompt.split()[1] for c in canaries}) == len(TEMPLATES)
    places = [i for i, c in enumerate(canaries) if c.inserted]
    assert 85 < np.mean(places) < 114, "inserted ones stand anywhere in the list"


def test_secrets_are_uniform_over_the_space_leading_zeros_included():
    digits = np.array([[int(d) for d in c.secret] for c in draw(count=1000, references=1, digits=3)])
    assert digits.shape == (1000, 3)
    counts = np.bincount(digits.flatten(), minlength=10)
    assert counts.sum() == 3000
    assert np.all(np.abs(counts - 300) < 5 * 300**0.5)


def test_references_are_other_secrets_of_the_same_form():
    for canary in draw(references=199):
        assert len(set(canary.references) | {canary.secret}) == 200
        assert {len(secret) for secret in canary.references} == {4}


def test_every_secret_but_the_smallest_space_can_be_asked_for():
    canary = draw(count=2, digits=3, references=999)[0]
    assert len({canary.secret, *canary.references}) == 1000
    with pytest.raises(ValidationError, match="more than 3 digits can tell"):
        CanaryConfig(digits=3, references=1000)


@pytest.mark.parametrize("count", [0, 3, 1002])
def test_canaries_come_in_pairs(count):
    with pytest.raises(ValidationError):
        CanaryConfig(count=count)


def test_the_ids_of_a_secret_do_not_depend_on_its_prompt():
    for canary in draw(count=20, references=20):
        for secret in (canary.secret, *canary.references):
            prompt, text = encode_texts(TOKENIZER, [canary.prompt, canary.prompt + secret])
            assert text == prompt + TOKENIZER.convert_tokens_to_ids(list(secret))


def test_the_toy_tokenizer_knows_every_word():
    texts = [t.format(name=f"{f} {n}") for t in TEMPLATES for f, n in zip(FIRST_NAMES, LAST_NAMES, strict=True)]
    assert not any(TOKENIZER.unk_token_id in ids for ids in encode_texts(TOKENIZER, texts))


def test_the_same_seed_draws_the_same_and_another_seed_others():
    assert draw() == draw()
    assert {c.text for c in draw()}.isdisjoint({c.text for c in draw(seed=1)})


class Joining:
    """Joins digits that touch, as many tokenizers do; a space before each keeps them apart."""

    def __call__(self, texts, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [[sum(map(ord, part)) for part in text.replace(" ", "| ").split("|")] for text in texts]}


def test_digits_stand_apart_where_the_tokenizer_joins_them():
    canary = draw(tokenizer=Joining())[0]
    assert [canary.secret[i] for i in (0, 2, 4, 6)] == [" "] * 4
    assert canary.alphabet == tuple(f" {d}" for d in range(10))
    assert canary.prompt == canary.prompt.strip()


def test_a_tokenizer_without_tokens_for_digits_is_refused():
    class Letters(Joining):
        def __call__(self, texts, add_special_tokens):
            return {"input_ids": [[hash(text[i : i + 7]) for i in range(0, len(text), 7)] for text in texts]}

    with pytest.raises(UserError, match="no tokens of its own"):
        draw(tokenizer=Letters())
