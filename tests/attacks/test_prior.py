"""What a language model says of orders of words, against its own log-probabilities of whole lines."""

from types import SimpleNamespace

import numpy as np
import torch

from qlorabench.attacks._prior import CausalPrior, causal_prior, spelled
from qlorabench.tasks.encoding import encode_texts, start_ids
from qlorabench.tasks.toy_lm import toy_lm_tokenizer


class Pieces:
    """A tokenizer of WordPieces."""

    names = ("the", "play", "##ing", ",", "cat")

    def convert_ids_to_tokens(self, ids):
        return [self.names[i] for i in ids]


def test_pieces_are_spelled_as_they_stand_in_a_line():
    assert spelled(Pieces(), [0, 1, 2, 3, 4]) == [" the", " play", "ing", ",", " cat"]


def test_words_after_each_other_are_as_likely_as_in_a_whole_line():
    tokenizer = toy_lm_tokenizer()
    prior = causal_prior("toy-lm", tokenizer)
    text = encode_texts(tokenizer, ["7 4 1 9"])[0]
    after = prior.after(text)
    assert after.shape == (5, len(tokenizer) + 1)
    row = torch.tensor([[*start_ids(tokenizer), *text]])
    with torch.no_grad():
        whole = torch.log_softmax(prior.model(input_ids=row).logits[0], dim=-1)
    torch.testing.assert_close(after[:, text], whole[:, text])
    assert np.isfinite(after.numpy()).all()


class Letters:
    """A tokenizer of letters and spaces, and a model that finds all alike."""

    bos_token_id = None

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(letter) for letter in text.strip()] for text in texts]}


def test_words_that_are_split_share_the_chance_of_their_first_part():
    model = lambda input_ids: SimpleNamespace(logits=torch.zeros(1, input_ids.shape[1], 128))  # noqa: E731
    after = CausalPrior(model, Letters(), [" a", " be", " by", " c"]).after([0, 1])
    assert after.shape == (3, 5)
    expected = -np.log(128) - np.array([0, np.log(2), np.log(2), 0])
    np.testing.assert_allclose(after[0, :4].numpy(), expected, rtol=1e-6)


def test_without_a_name_there_is_no_prior():
    assert causal_prior(None, Pieces()) is None
