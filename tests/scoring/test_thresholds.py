"""Leakage at a threshold that non-members set: its noise counts, and a signal still shows."""

import numpy as np
import pytest
from scipy import stats

from qlorabench.scoring.membership import tpr_at_fpr
from qlorabench.scoring.thresholds import exposed_share, rate_limit
from qlorabench.scoring.verdicts import judge_membership
from qlorabench.threats.claims import MembershipClaim

TARGET = 0.01
SIZES = (20, 100, 1000)


def lows(count, draws, *, exposed=0.0, shift=0.0, steps=None):
    """Return the lower ends for ``draws`` games of ``count`` members and as many others.

    A share ``exposed`` of the members stands above everybody, all are moved by ``shift``; ``steps`` rounds the scores.
    """
    rng, members = np.random.default_rng(count), np.arange(2 * count) < count
    found = []
    for _ in range(draws):
        scores = rng.normal(size=2 * count) + shift * members + 100 * (members & (rng.random(2 * count) < exposed))
        scores = scores if steps is None else np.round(scores * steps)
        found.append(tpr_at_fpr(scores, members=members, fpr=TARGET).leakage.low)
    return np.array(found)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("steps", [None, 1, 4])
def test_scores_that_know_nothing_rarely_leak(count, steps):
    draws = 600
    above = int((lows(count, draws, steps=steps) > 0).sum())
    assert stats.binom.sf(above - 1, draws, 0.025) > 0.001


@pytest.mark.parametrize("count", SIZES)
def test_no_draw_of_counts_leaks_more_often_than_it_may(count):
    allowed = int(TARGET * count)
    first = next(x for x in range(count + 1) if exposed_share(x, count, allowed=allowed, nonmembers=count).low > 0)
    chance = stats.betabinom(count, allowed + 1, count - allowed)
    assert chance.sf(first - 1) <= 0.025
    assert chance.sf(first - 2) > 0.02, "and hardly more rarely: nothing is given away"


@pytest.mark.parametrize(("count", "exposed", "power"), [(20, 0.6, 0.8), (100, 0.2, 0.9), (1000, 0.05, 0.9)])
def test_members_that_are_exposed_show(count, exposed, power):
    assert (lows(count, 100, exposed=exposed) > 0).mean() > power


@pytest.mark.parametrize("count", SIZES)
def test_the_share_that_is_exposed_lies_above_the_lower_end(count):
    draws, exposed = 400, 0.3
    beyond = int((lows(count, draws, exposed=exposed) > exposed).sum())
    assert stats.binom.sf(beyond - 1, draws, 0.025) > 0.001


def test_a_signal_that_all_members_share_shows_too():
    assert (lows(100, 50, shift=1.5) > 0).mean() > 0.8


def test_the_limit_of_a_rate_is_that_of_an_order_statistic():
    assert rate_limit(0, 20) == pytest.approx(1 - 0.025 ** (1 / 20))
    assert rate_limit(5, 5) == 1.0


@pytest.mark.parametrize(
    ("found", "members", "allowed", "nonmembers"), [(3, 2, 0, 5), (-1, 2, 0, 5), (1, 2, 5, 5), (1, 2, -1, 5)]
)
def test_counts_that_do_not_fit_are_refused(found, members, allowed, nonmembers):
    with pytest.raises(ValueError, match="may pass"):
        exposed_share(found, members, allowed=allowed, nonmembers=nonmembers)


@pytest.mark.parametrize(("count", "told"), [(20, True), (99, True), (100, False)])
def test_too_few_nonmembers_for_the_rate_are_told(count, told):
    members = np.arange(2 * count) < count
    claim = MembershipClaim(np.random.default_rng(0).normal(size=2 * count))
    rows = {row.metric: row for row in judge_membership(claim, members, rng=np.random.default_rng(0))}
    assert ("cannot show 1 %" in rows["tpr_at_1pct_fpr"].note) == told
