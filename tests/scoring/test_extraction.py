import numpy as np
import pytest

from qlorabench.errors import UserError
from qlorabench.scoring.extraction import Hidden, judge_extraction
from qlorabench.scoring.intervals import clopper_pearson, relative_gain
from qlorabench.threats.claims import ExtractionClaim

SPACE = 10_000
REFERENCES = 20


def hidden(count, seed=0, *, inserted=None):
    """Return ``count`` secrets of four digits, each second one inserted."""
    rng = np.random.default_rng(seed)
    rows = [[f"{n:04d}" for n in rng.choice(SPACE, REFERENCES, replace=False)] for _ in range(count)]
    told = [i % 2 == 0 for i in range(count)] if inserted is None else inserted
    return [Hidden(str(rng.choice(row)), is_in, tuple(row), SPACE) for row, is_in in zip(rows, told, strict=True)]


def judge(claim, truths, seed=0):
    rows = judge_extraction(claim, truths, rng=np.random.default_rng(seed))
    assert [row.metric for row in rows if row.headline] == ["extraction@1"]
    return {row.metric: row for row in rows}


def place(truths):
    return [truth.references.index(truth.secret) for truth in truths]


def knowing(truths, *, which=lambda truth: truth.inserted):
    """Return a claim that knows the secrets ``which`` says, and else guesses one secret that is none."""
    guesses = tuple((truth.secret,) if which(truth) else ("none",) for truth in truths)
    return ExtractionClaim(guesses, np.zeros((len(truths), REFERENCES)))


def ignorant(truths, rng, *, guesses=10):
    """Return a claim of a random order of the space."""
    said = tuple(tuple(f"{n:04d}" for n in rng.choice(SPACE, guesses, replace=False)) for _ in truths)
    return ExtractionClaim(said, rng.normal(size=(len(truths), REFERENCES)))


def test_every_inserted_secret_guessed_and_no_other_is_everything():
    truths = hidden(20)
    rows = judge(knowing(truths), truths)
    for metric in ("extraction@1", "extraction@10"):
        assert (rows[metric].value, rows[metric].control, rows[metric].leakage) == (1.0, 0.0, 1.0)
    assert rows["extraction@1"].low == pytest.approx(0.025 ** (1 / 10))
    assert 0.6 < rows["extraction@1"].leakage_low < rows["extraction@1"].low
    assert rows["exposure_bits"].value == rows["exposure_bits"].high == pytest.approx(np.log2(SPACE))
    assert rows["exposure_bits"].low < rows["exposure_bits"].value, "ten alike are no certainty"
    assert rows["exposure_bits"].leakage == 1.0
    assert rows["exposure_bits"].leakage_low == pytest.approx(0.025 ** (1 / 10))


def test_a_model_that_tells_every_secret_there_is_leaks_nothing_of_the_inserted_ones():
    truths = hidden(20)
    found = judge(knowing(truths, which=lambda truth: True), truths)["extraction@1"]
    assert (found.value, found.control, found.leakage, found.leakage_low) == (1.0, 1.0, 0.0, 0.0)


def test_the_rank_is_the_place_among_the_guesses():
    truths = hidden(2)
    guesses = (("a", "b", truths[0].secret), ("c", truths[1].secret))
    rows = judge(ExtractionClaim(guesses, np.zeros((2, REFERENCES))), truths)
    assert rows["extraction@1"].value == 0.0
    assert rows["extraction@10"].value == 1.0
    assert rows["exposure_bits"].value == pytest.approx(np.log2(SPACE / 3))
    assert rows["exposure_bits"].control == pytest.approx(np.log2(SPACE / 2))


@pytest.mark.parametrize(
    ("better", "ties", "guesses", "rank"),
    [
        (0, 0, 1, 0.5 / REFERENCES * SPACE),
        (7, 0, 1, 7.5 / REFERENCES * SPACE),
        (7, 4, 1, 9.5 / REFERENCES * SPACE),
        (0, REFERENCES - 1, 1, SPACE / 2),
        (0, 0, 900, 901),
    ],
)
def test_else_it_is_the_quantile_among_the_references_behind_the_guesses(better, ties, guesses, rank):
    truths = hidden(2)
    own = place(truths)[0]
    scores = np.full((2, REFERENCES), -1.0)
    others = [i for i in range(REFERENCES) if i != own]
    scores[0, own] = 0.0
    scores[0, others[:better]] = 1.0
    scores[0, others[better : better + ties]] = 0.0
    said = tuple(f"x{i}" for i in range(guesses))
    rows = judge(ExtractionClaim((said, said), scores), truths)
    assert rows["exposure_bits"].value == pytest.approx(np.log2(SPACE / rank))
    assert rows["extraction@10"].value == 0.0


def test_knowing_nothing_exposes_as_much_as_the_control():
    """The control lies in the interval, and no leak is seen, as often as 95 % intervals say; chance is 1.44 bits."""
    rng, tries = np.random.default_rng(0), 50
    missed, alarms, headline, bits = 0, 0, 0, []
    for trial in range(tries):
        truths = hidden(24, trial)
        rows = judge(ignorant(truths, rng), truths, seed=trial)
        exposure = rows["exposure_bits"]
        bits.append(exposure.value)
        missed += not exposure.low <= 1 / np.log(2) <= exposure.high
        alarms += exposure.leakage_low > 0
        headline += rows["extraction@1"].leakage_low > 0
    assert np.mean(bits) == pytest.approx(1 / np.log(2), abs=0.15)
    assert alarms <= 0.05 * tries
    assert headline == 0
    assert missed <= 0.12 * tries  # bootstrap of twelve skewed units: 5 % is asymptotic


@pytest.mark.parametrize(
    ("inside", "outside", "trials"), [(0.3, 0.3, 10), (0.5, 0.2, 10), (0.9, 0.05, 20), (1.0, 0, 8)]
)
def test_the_gain_lies_in_its_interval_as_often_as_it_says(inside, outside, trials):
    rng, tries = np.random.default_rng(1), 400
    truth, covered, high = (inside - outside) / (1 - outside), 0, 0
    for hits, others in zip(rng.binomial(trials, inside, tries), rng.binomial(trials, outside, tries), strict=True):
        found = relative_gain(clopper_pearson(int(hits), trials), clopper_pearson(int(others), trials))
        assert found.low <= found.value <= found.high
        covered += found.low <= truth <= found.high
        high += found.low > truth
    assert covered >= 0.93 * tries
    assert high <= 0.05 * tries


def test_without_a_control_there_is_no_leakage():
    truths = hidden(4, inserted=[True] * 4)
    rows = judge(knowing(truths), truths)
    for row in rows.values():
        assert row.leakage is None
        assert row.leakage_low is None
    assert rows["extraction@1"].value == 1.0


def test_no_prompts_no_numbers():
    rows = judge(ExtractionClaim((), np.empty((0, 0))), [])
    assert all(row.value is None and row.leakage is None for row in rows.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: ExtractionClaim(c.guesses[1:], c.scores), "guesses for 3 prompts"),
        (lambda c: ExtractionClaim(c.guesses, c.scores[:, 1:]), "the view posed 4 prompts"),
        (lambda c: ExtractionClaim(c.guesses, c.scores * np.nan), "not finite"),
        (lambda c: ExtractionClaim((("1", "1"), *c.guesses[1:]), c.scores), "twice"),
    ],
)
def test_a_claim_that_does_not_fit_the_prompts_is_refused(change, said):
    truths = hidden(4)
    with pytest.raises(UserError, match=said):
        judge(change(knowing(truths)), truths)


def test_guesses_out_of_the_references_are_refused():
    truths = hidden(20)
    rng = np.random.default_rng(0)
    said = tuple((str(rng.choice(truth.references)),) for truth in truths)
    with pytest.raises(UserError, match="taken from the references"):
        judge(ExtractionClaim(said, np.zeros((20, REFERENCES))), truths)
