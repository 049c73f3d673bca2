"""The membership game asks about members and others that are alike in label, and in group where clients hold groups."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import Encoded
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.challenge import ENOUGH, draw_challenge
from qlorabench.threats.matching import match, traits


def task_of(labels, clients, holdout, *, groups=None):
    """Return a task of made-up rows: ``clients`` and ``holdout`` are lists of row numbers."""
    rows = len(labels)
    encoded = Encoded(tuple(np.array([i]) for i in range(rows)), np.array(labels), np.ones(rows, np.int64), 0)
    own = tuple(np.array(part, np.int64) for part in clients)
    columns = {} if groups is None else {"film": tuple(groups)}
    return PreparedTask(
        encoded, (), ("a", "b"), own, np.empty(0, np.int64), np.array(holdout, np.int64), groups=columns
    )


def sides(challenge, values):
    """Return how often each of ``values`` stands among members, and among the others."""
    rows = [challenge.rows[challenge.members], challenge.rows[~challenge.members]]
    return [Counter(values[row] for row in part.tolist()) for part in rows]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.05, 0.5, 0.9]), st.sampled_from([0.1, 0.5]), st.integers(1, 40))
def test_both_sides_hold_the_same_labels(number, inside, outside, most):
    rng = np.random.default_rng(number)
    labels = [*(rng.random(60) < inside).astype(int), *(rng.random(50) < outside).astype(int)]
    task = task_of(labels, [range(20), range(20, 60)], range(60, 110))
    challenge = draw_challenge(task, insiders=1, most=most, seed=Seed(number))
    members, others = sides(challenge, labels)
    assert members == others
    possible = sum((Counter(labels[20:60]) & Counter(labels[60:])).values())
    assert members.total() == min(most, possible)
    assert len(set(challenge.rows.tolist())) == len(challenge.rows)
    assert challenge.uncontrolled == ""


def test_a_pair_is_a_member_and_another_that_is_like_it():
    labels = [i % 3 for i in range(120)]
    challenge = draw_challenge(task_of(labels, [range(60)], range(60, 120)), insiders=0, most=50, seed=Seed(0))
    for pair in range(50):
        (both,) = np.nonzero(challenge.pairs == pair)[0].reshape(1, 2)
        assert challenge.members[both].sum() == 1
        assert len({labels[row] for row in challenge.rows[both]}) == len(set(challenge.strata[both].tolist())) == 1


def grouped(shared):
    """Return a task whose client holds films 0 to 9, five rows of each, of which ``shared`` are held out as well."""
    films = [f"f{i // 5}" for i in range(50)] + [f"f{i % shared}" for i in range(100) if shared] + ["g"] * 100
    labels = [i % 2 for i in range(len(films))]
    return task_of(labels, [range(50)], range(50, len(films)), groups=films), films, labels


def test_where_clients_hold_groups_both_sides_hold_the_same_ones():
    task, films, labels = grouped(shared=10)
    challenge = draw_challenge(task, insiders=0, most=50, seed=Seed(0), column="film")
    kinds = list(zip(films, labels, strict=True))
    members, others = sides(challenge, kinds)
    assert members == others
    assert members.total() >= ENOUGH
    assert challenge.uncontrolled == ""


def test_too_few_pairs_of_a_group_are_filled_up_by_label_and_told():
    task, films, labels = grouped(shared=2)
    challenge = draw_challenge(task, insiders=0, most=50, seed=Seed(0), column="film")
    members, others = sides(challenge, labels)
    assert members == others
    assert members.total() == 50
    inside, outside = sides(challenge, list(zip(films, labels, strict=True)))
    alike = (inside & outside).total()
    assert challenge.uncontrolled == f"not controlled: film of {50 - alike} of 50 pairs"
    assert alike > 0


def test_a_column_that_nobody_kept_is_told():
    challenge = draw_challenge(
        task_of([0] * 8, [range(4)], range(4, 8)), insiders=0, most=4, seed=Seed(0), column="film"
    )
    assert challenge.uncontrolled == "not controlled: film"


def test_members_of_a_label_that_nobody_held_out_are_not_asked_about():
    challenge = draw_challenge(
        task_of([0] * 10 + [1] * 10, [range(10)], range(10, 20)), insiders=0, most=9, seed=Seed(0)
    )
    assert len(challenge.rows) == 0


def test_pairs_are_left_out_whole():
    challenge = draw_challenge(task_of([0] * 40, [range(20)], range(20, 40)), insiders=0, most=20, seed=Seed(0))
    gone = challenge.rows[:3]
    kept = challenge.without(gone)
    part = challenge.only(kept)
    assert not np.isin(gone, part.rows).any()
    assert part.members.sum() * 2 == len(part.rows)
    assert 34 <= len(part.rows) <= 37
    assert sorted(np.bincount(part.pairs)[part.pairs].tolist()) == [2] * len(part.rows)


@pytest.mark.parametrize("most", [0, 3, 10])
def test_the_narrowest_trait_comes_first(most):
    task = task_of([0, 0, 0, 0, 0, 0], [range(3)], range(3, 6), groups=["x", "y", "z", "x", "w", "x"])
    found = match(range(3), range(3, 6), traits(task, column="film"), most=most)
    assert [(pair.inside, pair.outside, pair.level) for pair in found] == [(0, 3, 0), (1, 4, 1), (2, 5, 1)][:most]
