import numpy as np
import pytest

from qlorabench.scoring.reconstruction import Sentences, judge_reconstruction
from qlorabench.threats.claims import ClientTexts, ReconstructionClaim

VOCABULARY = 60
TEXTS = ("rouge1", "rouge2", "rouge_l", "exact")
POPULAR = 1 / (np.arange(VOCABULARY) + 3)


def sentences(count, seed, *, words=range(VOCABULARY)):
    """Return ``count`` texts of eight tokens, some words far commoner than others."""
    rng = np.random.default_rng(seed)
    odds = POPULAR[: len(words)] / POPULAR[: len(words)].sum()
    rows = [rng.choice(list(words), 8, p=odds) for _ in range(count)]
    tokens = tuple(tuple((place, int(t)) for place, t in enumerate(row, 1)) for row in rows)
    return Sentences(tokens, tuple(" ".join(f"w{t}" for t in row) for row in rows))


def judge(claim, truths, controls, seed=0):
    rows = judge_reconstruction(claim, truths, [[control] for control in controls], rng=np.random.default_rng(seed))
    assert [row.metric for row in rows if row.headline] == ["token_recall"]
    return {row.metric: row for row in rows}


def exact(client, truth):
    return ClientTexts(client, frozenset(truth.distinct), frozenset(truth.placed), truth.texts)


@pytest.fixture
def apart():
    """Return truths and controls of two clients whose words occur nowhere else."""
    truths = [sentences(10, i, words=range(30 * i, 30 * i + 20)) for i in range(2)]
    return truths, [sentences(10, 9, words=range(80, 100)) for _ in truths]


def test_every_word_of_a_client_in_its_place_scores_one(apart):
    truths, controls = apart
    rows = judge(ReconstructionClaim((exact(1, truths[1]),)), truths, controls)
    ones = ("token_recall", "token_precision", "placed_precision", "placed_recall", *TEXTS)
    for metric in ones:
        assert rows[metric].value == 1.0, metric
    assert (rows["edit_distance"].value, rows["edit_distance"].control) == (0.0, 1.0)
    assert rows["exact"].leakage == rows["rouge1"].leakage == 1.0
    least = (0.05 / 2 / 2) ** (1 / 10)  # ten texts, two clients: of the rate, and 1 - least at most of the control
    assert rows["exact"].low == pytest.approx(least)
    assert rows["exact"].leakage_low == pytest.approx(1 - (1 - least) / np.sqrt(1 - (1 - least) ** 2))
    assert rows["token_recall"].leakage == 1.0
    assert rows["token_recall"].leakage_low == rows["exact"].leakage_low
    assert rows["token_recall"].control == 0.0
    assert rows["token_recall"].note.startswith("client 1 of 2, 10 texts")


def test_claiming_every_word_there_is_leaks_nothing(apart):
    truths, controls = apart
    everything = ClientTexts(0, tokens=frozenset(range(200)))
    found = judge(ReconstructionClaim((everything,)), truths, controls)["token_recall"]
    assert (found.value, found.control) == (1.0, 1.0)
    assert (found.leakage, found.leakage_low) == (0.0, 0.0)


@pytest.mark.parametrize("claim", [ReconstructionClaim(()), ReconstructionClaim((ClientTexts(0, note="blind"),))])
def test_claiming_nothing_recalls_nothing_and_has_no_precision(apart, claim):
    rows = judge(claim, *apart)
    assert (rows["token_recall"].value, rows["token_recall"].leakage) == (0.0, 0.0)
    for metric in ("token_precision", "placed_precision", "edit_distance", "rouge2_shuffled", "exact_shuffled", *TEXTS):
        assert rows[metric].value is None, metric
        assert rows[metric].note, metric


def test_recall_is_the_mean_share_of_a_texts_distinct_words():
    truth = Sentences((((1, 5), (2, 5), (3, 6)), ((1, 7), (2, 8), (3, 9), (4, 5))), ("", ""))
    control = Sentences((((1, 5), (2, 11)), ((1, 12),)), ("", ""))
    claim = ReconstructionClaim((ClientTexts(0, tokens=frozenset({5, 7})),))
    found = judge(claim, [truth], [control])
    assert found["token_recall"].value == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found["token_recall"].control == pytest.approx((1 / 2 + 0) / 2)
    assert found["token_recall"].leakage == pytest.approx((0.5 - 0.25) / (1 - 0.25))
    assert found["token_precision"].value == 1.0
    assert found["token_precision"].control == 0.5


def test_a_word_in_the_wrong_place_is_a_word_and_no_place():
    truth = Sentences((((1, 5), (2, 6)), ((1, 6), (2, 7))), ("", ""))
    said = ClientTexts(0, tokens=frozenset({5}), placed=frozenset({(2, 5), (1, 6)}))
    found = judge(ReconstructionClaim((said,)), [truth], [sentences(2, 0, words=range(20, 40))])
    assert found["token_precision"].value == 1.0
    assert found["placed_precision"].value == 0.5
    assert found["placed_recall"].value == pytest.approx(1 / 4)


def test_the_client_that_is_exposed_most_is_the_one_reported(apart):
    truths, controls = apart
    some = ClientTexts(0, tokens=frozenset(sorted(truths[0].distinct)[:3]))
    found = judge(ReconstructionClaim((some, exact(1, truths[1]))), truths, controls)
    assert "client 1 of 2" in found["token_recall"].note
    other = judge(ReconstructionClaim((some,)), truths, controls)
    assert "client 0 of 2" in other["token_recall"].note


def test_the_words_of_one_client_claimed_of_another_do_not_count(apart):
    truths, controls = apart
    swapped = ClientTexts(0, tokens=frozenset(truths[1].distinct))
    assert judge(ReconstructionClaim((swapped,)), truths, controls)["token_recall"].leakage == 0.0


def test_more_clients_to_choose_from_make_a_wider_interval():
    truth, control = sentences(20, 1), sentences(20, 2)
    claim = ReconstructionClaim((ClientTexts(0, tokens=frozenset(range(0, 20, 2))),))
    nobody = Sentences(truth.tokens, truth.texts)
    one = judge(claim, [truth], [control])["token_recall"]
    many = judge(claim, [truth] + [nobody] * 5, [control] * 6)["token_recall"]
    assert "client 0" in many.note
    assert many.low < one.low
    assert many.high > one.high


def test_popular_words_claimed_of_everybody_rarely_seem_to_leak():
    """Under the null the worst of three clients excludes zero in at most some 2.5 % of cases."""
    alarms = 0
    for trial in range(12):
        rng = np.random.default_rng(trial)
        truths = [sentences(15, (trial, i)) for i in range(3)]
        controls = [sentences(15, (trial, i, 7)) for i in range(3)]
        guesses = (frozenset(rng.choice(30, 12, replace=False).tolist()) for _ in truths)
        claim = ReconstructionClaim(tuple(ClientTexts(i, tokens=g) for i, g in enumerate(guesses)))
        alarms += judge(claim, truths, controls)["token_recall"].leakage_low > 0
    assert alarms <= 2  # of 12; more than two have a chance of 2 % even at a rate of 0.05


def test_a_client_that_drew_nothing_is_scored_on_nothing(apart):
    truths, controls = apart
    empty = Sentences((), ())
    rows = judge(ReconstructionClaim((exact(1, truths[1]),)), [empty, truths[1]], [empty, controls[1]])
    assert "client 1" in rows["token_recall"].note


def test_a_control_that_no_text_defines_is_not_zero():
    truth = Sentences((((1, 5), (2, 6)),) * 2, ("w5 w6", "w5 w6"))
    control = Sentences((((1, 7),),) * 2, ("w7", "w7"))
    rows = judge(ReconstructionClaim((exact(0, truth),)), [truth], [control])
    assert rows["rouge2"].value == 1.0
    assert rows["rouge2"].control is None or np.isnan(rows["rouge2"].control)


def test_a_recall_over_nothing_is_missing_and_not_zero():
    empty = Sentences((), ())
    rows = judge(ReconstructionClaim((ClientTexts(0),)), [empty], [empty])
    assert rows["placed_recall"].value is None


def test_order_scores_fall_on_the_same_words_shuffled(apart):
    rows = judge(ReconstructionClaim((exact(1, apart[0][1]),)), *apart)
    assert rows["rouge2"].value == rows["exact"].value == 1.0
    assert rows["rouge2_shuffled"].value < 0.5
    assert rows["exact_shuffled"].value < 0.5
    assert rows["rouge2_shuffled"].leakage is None


def test_words_without_their_order_leak_words_and_no_sentences(apart):
    truths, controls = apart
    rng = np.random.default_rng(4)
    texts = tuple(" ".join(rng.permutation(text.split())) for text in truths[0].texts)
    said = ClientTexts(0, frozenset(truths[0].distinct), texts=texts)
    rows = judge(ReconstructionClaim((said,)), truths, controls)
    assert rows["rouge1"].leakage == 1.0
    assert rows["exact"].leakage < 0.3
    assert rows["exact"].leakage_low <= 0.0
    assert abs(rows["rouge2"].value - rows["rouge2_shuffled"].value) < 0.3


def test_whole_texts_that_everybody_writes_leak_nothing():
    truth = sentences(10, 1)
    claim = ReconstructionClaim((ClientTexts(0, frozenset(truth.distinct), texts=truth.texts),))
    rows = judge(claim, [truth], [truth])
    assert rows["exact"].value == rows["exact"].control == 1.0
    assert rows["exact"].leakage == rows["rouge1"].leakage == 0.0


def test_two_texts_are_too_few_to_say_much_of():
    truth = Sentences((((1, 5), (2, 6)), ((1, 7), (2, 8))), ("w5 w6", "w7 w8"))
    found = judge(ReconstructionClaim((exact(0, truth),)), [truth], [sentences(2, 0, words=range(20, 40))])
    assert found["rouge2"].value == found["rouge_l"].value == found["exact"].value == 1.0
    for metric in ("token_recall", *TEXTS):
        assert found[metric].low == pytest.approx(0.025 ** (1 / 2)), metric


def test_a_control_of_more_lots_is_told_from_more_surely():
    truth = sentences(4, 1, words=range(20))
    lots = [sentences(4, i, words=range(30, 50)) for i in range(12)]
    claim = ReconstructionClaim((exact(0, truth),))
    few, enough = (
        judge_reconstruction(claim, [truth], [some], rng=np.random.default_rng(0))[0] for some in (lots[:1], lots)
    )
    assert few.leakage == enough.leakage == 1.0
    assert few.leakage_low < 0.3 < enough.leakage_low


def many(clients):
    truths = [sentences(2, i, words=range(60 * i, 60 * i + 40)) for i in range(clients)]
    return truths, [sentences(2, 900, words=range(9000, 9020)) for _ in truths]


def clients_row(claim, truths, controls, *, insiders=0):
    lots = [[control] for control in controls]
    rows = judge_reconstruction(claim, truths, lots, rng=np.random.default_rng(0), insiders=insiders)
    return {row.metric: row for row in rows}.get("token_recall_clients")


def test_the_mean_over_clients_counts_those_of_whom_nothing_is_said():
    truths, controls = many(8)
    claim = ReconstructionClaim(tuple(exact(i, truths[i]) for i in range(6)))
    row = clients_row(claim, truths, controls)
    assert row.value == pytest.approx(6 / 8)
    assert (row.n, row.headline) == (8, True)
    assert 0 < row.leakage_low < row.leakage < row.leakage_high


def test_the_seats_own_clients_are_left_out_of_the_mean():
    truths, controls = many(10)
    claim = ReconstructionClaim(tuple(exact(i, truths[i]) for i in range(2, 10)))
    assert clients_row(claim, truths, controls, insiders=2).value == 1.0
    assert clients_row(claim, truths, controls, insiders=3) is None


def test_a_claim_of_what_nobody_wrote_leaks_nothing_of_the_mean():
    truths, controls = many(8)
    other = [sentences(2, i + 50, words=range(5000, 5040)) for i in range(8)]
    row = clients_row(ReconstructionClaim(tuple(exact(i, o) for i, o in enumerate(other))), truths, controls)
    assert (row.value, row.leakage, row.leakage_low) == (0.0, 0.0, 0.0)


def test_a_client_that_wrote_no_word_is_left_out_of_the_mean():
    truths = [sentences(4, i) for i in range(8)]
    truths.append(Sentences((), ("🎉",)))
    controls = [sentences(4, 90 + i) for i in range(9)]
    claim = ReconstructionClaim(tuple(exact(i, truth) for i, truth in enumerate(truths[:8])))
    rows = judge_reconstruction(claim, truths, [[control] for control in controls], rng=np.random.default_rng(0))
    found = {row.metric: row for row in rows}["exact_clients"]
    assert (found.value, found.n) == (1.0, 8)
