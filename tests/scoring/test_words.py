"""Words of any script, and texts that are the same in every character."""

import pytest

from qlorabench.scoring.reconstruction import Sentences, judge_reconstruction
from qlorabench.scoring.text import edit_distance, reconstruction_scores, rouge_l, rouge_n, token_scores
from qlorabench.scoring.words import characters, words
from qlorabench.threats.claims import ClientTexts, ReconstructionClaim


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Привет, МИР! №5", ["привет", "мир", "no5"]),
        ("Straße, ﬁne ²", ["strasse", "fine", "2"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("می\u200cخواهم co\u00adop", ["میخواهم", "coop"]),
        ("東京a1 タワー", ["東", "京", "a1", "タ", "ワ", "ー"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("한국어 텍스트", ["한국어", "텍스트"]),
        ("snake_case don't", ["snake", "case", "don", "t"]),
        ("٣ cats", ["٣", "cats"]),
        ("🎉 ... —", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(text, found):
    assert list(words(text)) == found


def test_accents_are_the_same_however_they_are_encoded_and_tell_words_apart():
    assert words("cafe\u0301 и\u0306") == words("caf\u00e9 \u0439")
    assert words("café") != words("cafe")
    assert words("й") != words("и")
    assert characters("cafe\u0301") == characters("caf\u00e9")


def test_a_text_of_another_script_read_whole_is_exact():
    text = "в начале было слово"
    assert rouge_n(text, text, n=1) == rouge_n(text, text, n=2) == rouge_l(text, text) == 1.0
    assert edit_distance(text, text) == 0.0
    assert reconstruction_scores([text], [text]).exact.tolist() == [1.0]


def test_every_word_wrong_and_the_number_right_is_not_exact():
    scores = reconstruction_scores(["заплатил 42 рубля"], ["получила 42 доллара"])
    assert scores.exact.tolist() == scores.exact_with_marks.tolist() == [0.0]
    assert scores.rouge1 == pytest.approx([1 / 3])
    assert scores.edit == pytest.approx([2 / 3])


def test_marks_are_a_metric_of_their_own():
    claims = {
        "Good, no?": (1.0, 1.0),
        "Good ,  no ?": (1.0, 1.0),
        "good, no?": (1.0, 0.0),
        "Good! No?": (1.0, 0.0),
        "Goodn, o?": (0.0, 0.0),
        "Bad, no?": (0.0, 0.0),
    }
    for claim, expected in claims.items():
        scores = reconstruction_scores(["Good, no?"], [claim])
        assert (scores.exact[0], scores.exact_with_marks[0]) == expected, claim


def test_emoji_count_by_their_marks_where_there_are_no_words():
    scores = reconstruction_scores(["🎉🎉", "🎉", "..."], ["🎉", "..."])
    assert scores.exact_with_marks.tolist() == [0.0, 1.0, 1.0]
    assert all(value != value for value in scores.exact)


def test_of_two_claims_with_the_same_words_the_one_with_the_marks_is_taken():
    scores = reconstruction_scores(["so good!", "so good?"], ["so good?", "so good!"])
    assert scores.exact_with_marks.tolist() == [1.0, 1.0]


def test_pairs_with_the_same_hash_are_not_the_same():
    assert hash(-1) == hash(-2)
    assert token_scores({(1, -1)}, {(1, -2)}).hits == 0
    truth = Sentences((((1, -1),),), ("a",))
    other = Sentences((((1, 9),),), ("b",))
    claim = ReconstructionClaim((ClientTexts(0, frozenset({-2}), frozenset({(1, -2)})),))
    rows = {row.metric: row for row in judge_reconstruction(claim, [truth], [[other]], rng=None)}
    assert rows["token_precision"].value == rows["placed_precision"].value == 0.0


@pytest.mark.parametrize("named", [(7,), (-1,), (0, 0)])
def test_a_claim_of_nobody_or_of_one_twice_is_refused(named):
    truth = Sentences((((1, 5),),), ("a",))
    claim = ReconstructionClaim(tuple(ClientTexts(client) for client in named))
    with pytest.raises(ValueError, match="names"):
        judge_reconstruction(claim, [truth], [[truth]], rng=None)
