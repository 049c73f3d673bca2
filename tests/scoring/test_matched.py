"""Membership where members and others are matched, and where an untrained adapter is the control."""

import numpy as np
import pytest
from scipy import stats

from qlorabench.scoring.membership import advantage_leakage, auc_leakage, coin_flip_control
from qlorabench.scoring.ranks import Matched
from qlorabench.scoring.verdicts import judge_membership
from qlorabench.threats.claims import MembershipClaim

LEAKAGES = [auc_leakage, advantage_leakage]
PAIRS = 40
DRAWS = 300


def game(rng, *, pairs=PAIRS, by_label=3.0, labels=(0.5, 0.5), matched=True):
    """Return what scores say that tell labels and nothing else, who is a member, and how they are matched.

    ``labels`` are the shares of label 1 among members and others, which ``matched`` pairs share.
    """
    members = np.arange(2 * pairs) < pairs
    own = rng.random(pairs) < labels[0]
    tags = np.concatenate([own, own if matched else rng.random(pairs) < labels[1]])
    scores = rng.normal(size=2 * pairs) + by_label * tags
    return scores, members, Matched(np.tile(np.arange(pairs), 2), tags.astype(np.int64))


def how_often(count, draw, measure=auc_leakage, **options):
    """Return in how many of ``count`` games the lower end of the leakage is above 0."""
    found = 0
    for number in range(count):
        rng = np.random.default_rng(number)
        scores, members, matched = draw(rng)
        low = measure(scores, members=members, rng=rng, flips=4, draws=DRAWS, matched=matched, **options).low
        found += low is not None and low > 0
    return found


def rarely(found, count):
    return stats.binom.sf(found - 1, count, 0.03) > 0.001


@pytest.mark.parametrize("measure", LEAKAGES)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_scores_that_tell_labels_alone_rarely_leak(measure, share):
    found = how_often(200, lambda rng: game(rng, labels=(share, share)), measure)
    assert rarely(found, 200)


def test_without_a_match_they_would():
    def loose(rng):
        scores, members, _ = game(rng, labels=(0.9, 0.4), matched=False)
        return scores, members, None

    assert how_often(50, loose) > 30


def test_with_a_stratum_for_every_pair_the_rate_holds():
    def alone(rng):
        scores, members, matched = game(rng)
        return scores + 2 * rng.normal(size=PAIRS)[matched.pairs], members, Matched(matched.pairs, matched.pairs)

    assert rarely(how_often(200, alone), 200)


def shifted(rng, *, trained, untrained, left_out=0.0):
    """Return a game whose members score higher by ``untrained`` anyway, and by ``trained`` once they are trained on."""
    scores, members, matched = game(rng, by_label=0.0)
    hard = rng.normal(size=len(scores))
    null = hard + 0.5 * scores + untrained * members
    null[rng.permutation(np.arange(PAIRS) < left_out * PAIRS)[matched.pairs]] = np.nan
    real = hard + 0.5 * rng.normal(size=len(scores)) + (untrained + trained) * members
    return real, members, Matched(matched.pairs, matched.strata, null)


@pytest.mark.parametrize("left_out", [0.0, 0.5])
@pytest.mark.parametrize("untrained", [0.0, 1.0])
def test_what_an_untrained_adapter_says_too_is_no_leak(untrained, left_out):
    found = how_often(200, lambda rng: shifted(rng, trained=0.0, untrained=untrained, left_out=left_out))
    assert rarely(found, 200)


def test_the_same_shift_leaks_where_no_null_is_asked():
    def unasked(rng):
        scores, members, matched = shifted(rng, trained=0.0, untrained=1.0)
        return scores, members, Matched(matched.pairs, matched.strata)

    assert how_often(50, unasked) > 40


def test_what_training_adds_leaks():
    assert how_often(50, lambda rng: shifted(rng, trained=1.5, untrained=0.5, left_out=0.3)) > 45


def judged(scores, members, matched, note=""):
    rows = judge_membership(MembershipClaim(scores), members, rng=np.random.default_rng(0), matched=matched, note=note)
    return {row.metric: row for row in rows}


def test_every_metric_is_held_against_the_untrained_adapter():
    scores, members, matched = shifted(np.random.default_rng(0), trained=0.0, untrained=3.0)
    rows = judged(scores, members, matched, note="control: seed 1")
    for metric in ("auc", "tpr_at_1pct_fpr", "advantage"):
        assert rows[metric].control > 0.4, metric
        assert not rows[metric].leakage_low, metric
    assert rows["auc"].note == "control: seed 1"
    alone = judged(scores, members, Matched(matched.pairs, matched.strata))
    assert all(alone[metric].leakage_low > 0 for metric in ("auc", "tpr_at_1pct_fpr", "advantage"))


def test_an_untrained_adapter_that_says_the_opposite_changes_nothing_for_the_better():
    scores, members, matched = shifted(np.random.default_rng(0), trained=1.0, untrained=0.0)
    worse = Matched(matched.pairs, matched.strata, -matched.null - 5.0 * members)
    with_null, without = judged(scores, members, worse), judged(scores, members, Matched(matched.pairs, matched.strata))
    assert with_null["auc"].leakage == without["auc"].leakage
    assert with_null["auc"].control == without["auc"].control


def test_coins_fall_within_strata():
    strata = np.repeat([0, 1, 2], [10, 7, 1])
    for number in range(20):
        members = coin_flip_control(np.arange(18.0), rng=np.random.default_rng(number), strata=strata).members
        counts = [int(members[strata == stratum].sum()) for stratum in range(3)]
        assert counts[0] == 5
        assert counts[1] in (3, 4)
        assert sum(counts) == 9
