from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.tasks.dataset import Table
from qlorabench.tasks.partitions import (
    ColumnPartition,
    DirichletPartition,
    IidPartition,
    LabelProportionsPartition,
    Partition,
    label_shares,
    partition,
)

SEED = Seed(3)
IID = IidPartition()
SEVERE = LabelProportionsPartition(level="severe")
FILM = ColumnPartition(column="film")


def table(labels, classes=None, films=None):
    names = tuple(f"c{i}" for i in range(classes or max(labels) + 1))
    films = films or [i // 3 for i in range(len(labels))]
    groups = {"film": tuple(f"f{film}" for film in films)}
    return Table("toy", tuple(f"t{i}" for i in range(len(labels))), tuple(labels), names, groups)


def deal(config, made, *, pool=None, clients=2, rows=5, seed=SEED):
    pool = np.arange(len(made)) if pool is None else pool
    return partition(config, made, pool, clients=clients, rows_per_client=rows, seed=seed)


def counts(part, made):
    return [sum(made.labels[row] == label for row in part) for label in range(len(made.label_names))]


def assert_disjoint_and_in_pool(parts, pool):
    rows = [row for part in parts for row in part.tolist()]
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(pool.tolist())
    assert all(len(part) for part in parts)


@st.composite
def cases(draw):
    labels = draw(st.lists(st.integers(0, 3), min_size=12, max_size=60))
    films = draw(st.lists(st.integers(0, 9), min_size=len(labels), max_size=len(labels)))
    keep = draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    pool = np.flatnonzero(np.array(keep) | (np.arange(len(labels)) < 8))
    clients = draw(st.integers(1, 4))
    sizes = [draw(st.integers(1, len(pool) // clients)) for _ in range(clients)]
    return table(labels, 4, films), pool, sizes, Seed(draw(st.integers(0, 2**16)))


@settings(deadline=None)
@given(cases(), st.sampled_from([IID, *(DirichletPartition(alpha=a) for a in (0.01, 0.3, 1e6))]))
def test_sizes_are_exact_whatever_the_pool(case, config):
    made, pool, sizes, seed = case
    parts = deal(config, made, pool=pool, clients=len(sizes), rows=sizes, seed=seed)
    assert [len(part) for part in parts] == sizes
    assert_disjoint_and_in_pool(parts, pool)
    again = deal(config, made, pool=pool, clients=len(sizes), rows=sizes, seed=seed)
    assert [part.tolist() for part in parts] == [part.tolist() for part in again]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 10), min_size=1, max_size=4),
    st.sampled_from(["mild", "severe"]),
    st.integers(2, 4),
    st.integers(0, 2**16),
)
def test_label_proportions_are_rounded_to_the_next_row(sizes, level, labels, root):
    made = table(list(range(labels)) * 40)
    pool = np.arange(5, len(made))
    config = LabelProportionsPartition(level=level)
    parts = deal(config, made, pool=pool, clients=len(sizes), rows=sizes, seed=Seed(root))
    assert_disjoint_and_in_pool(parts, pool)
    assert [len(part) for part in parts] == sizes
    shares = label_shares(config, labels=labels, clients=len(sizes))
    for part, share in zip(parts, shares, strict=True):
        assert np.abs(np.array(counts(part, made)) - share * len(part)).max() < 1


@settings(deadline=None)
@given(cases())
def test_no_group_is_shared(case):
    made, pool, sizes, seed = case
    films = np.array(made.groups["film"])
    if len(set(films[pool])) < len(sizes):
        with pytest.raises(UserError, match="too few for"):
            deal(FILM, made, pool=pool, clients=len(sizes), rows=sizes, seed=seed)
        return
    parts = deal(FILM, made, pool=pool, clients=len(sizes), rows=sizes, seed=seed)
    assert_disjoint_and_in_pool(parts, pool)
    assert all(len(part) <= size for part, size in zip(parts, sizes, strict=True))
    owners = Counter(film for part in parts for film in set(films[part]))
    assert set(owners.values()) == {1}
    again = deal(FILM, made, pool=pool, clients=len(sizes), rows=sizes, seed=seed)
    assert [part.tolist() for part in parts] == [part.tolist() for part in again]


@pytest.mark.parametrize("config", [IID, SEVERE, DirichletPartition(alpha=1), FILM])
def test_another_seed_deals_otherwise(config):
    made = table([0, 1] * 60)
    first, other = (deal(config, made, rows=20, seed=Seed(root)) for root in (0, 1))
    assert [part.tolist() for part in first] != [part.tolist() for part in other]


@pytest.mark.parametrize("config", [IID, SEVERE, DirichletPartition(alpha=1), FILM])
def test_rows_of_a_client_are_not_sorted(config):
    for part in deal(config, table([0, 1] * 60), rows=20):
        assert part.tolist() != sorted(part.tolist())


@pytest.mark.parametrize(
    ("level", "labels", "expected"),
    [
        ("severe", 2, [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]),
        ("mild", 2, [[0.3, 0.7], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7]]),
        ("severe", 3, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.9, 0.05, 0.05]]),
        ("mild", 3, [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6], [0.6, 0.2, 0.2]]),
    ],
)
def test_presets_go_round(level, labels, expected):
    shares = label_shares(LabelProportionsPartition(level=level), labels=labels, clients=4)
    np.testing.assert_allclose(shares, expected)


def test_severe_gives_the_counts_of_the_paper():
    made = table([0, 1] * 60)
    parts = deal(SEVERE, made, clients=3, rows=[20, 20, 10])
    assert [counts(part, made) for part in parts] == [[2, 18], [18, 2], [5, 5]]


def test_own_proportions():
    made = table([0, 1] * 20)
    config = LabelProportionsPartition(proportions=[[0, 1], [0.25, 0.75]])
    assert [counts(part, made) for part in deal(config, made, rows=4)] == [[0, 4], [1, 3]]


def test_dirichlet_follows_alpha():
    made = table([0] * 300 + [1] * 100)
    even = deal(DirichletPartition(alpha=1e6), made, clients=4, rows=40)
    assert [counts(part, made) for part in even] == [[30, 10]] * 4
    skewed = deal(DirichletPartition(alpha=0.01), made, clients=4, rows=20)
    assert sum(min(counts(part, made)) <= 1 for part in skewed) >= 3


def test_dirichlet_draws_have_the_mean_and_spread_of_the_distribution():
    made = table([0] * 3000 + [1] * 1000)
    parts = [deal(DirichletPartition(alpha=2), made, clients=1, rows=100, seed=Seed(i)) for i in range(300)]
    shares = np.array([counts(part, made)[0] / 100 for (part,) in parts])
    assert shares.mean() == pytest.approx(0.75, abs=0.05)
    assert shares.var() == pytest.approx(0.75 * 0.25 / 3, abs=0.015)


def test_columns_are_filled_evenly_with_whole_groups():
    made = table([0, 1] * 60, films=[i // 5 for i in range(120)])
    films = np.array(made.groups["film"])
    parts = deal(FILM, made, clients=3, rows=20)
    assert [len(part) for part in parts] == [20, 20, 20]
    assert all(set(Counter(films[part]).values()) == {5} for part in parts)
    assert [len(part) for part in deal(FILM, made, clients=3, rows=1000)] == [40, 40, 40]


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (IID, {"rows": 25}, "2 clients ask for 50 rows; the training pool of 'toy' has 40"),
        (DirichletPartition(alpha=1), {"rows": [39, 2]}, "ask for 41 rows"),
        (IID, {"rows": [1, 2, 3]}, "lists 3 sizes for 2 clients"),
        (IID, {"rows": [1, 0]}, "is 0 for a client"),
        (IID, {"clients": 0}, "0 clients"),
        (SEVERE, {"clients": 1, "rows": 30}, "'c0' 3 of 20, 'c1' 27 of 20"),
        (ColumnPartition(column="flim"), {}, "no group column 'flim'. Did you mean 'film'.*columns: film"),
        (FILM, {"clients": 20, "rows": 1}, "'film' has 14 groups in the training pool, too few for 20"),
        (LabelProportionsPartition(proportions=[[1]]), {}, "list 1 labels for a client; the data set has 2"),
        (LabelProportionsPartition(proportions=[[1, 0]] * 3), {}, "list 3 clients; the federation has 2"),
    ],
)
def test_what_cannot_be_dealt_is_told(config, options, said):
    with pytest.raises(UserError, match=said):
        deal(config, table([0, 1] * 20), **options)


def test_a_table_without_groups_says_how_to_get_them():
    made = Table("toy", ("a", "b"), (0, 1), ("x", "y"))
    with pytest.raises(UserError, match="local files name one with 'group'"):
        deal(FILM, made, rows=1)


def test_kinds_are_told_apart():
    adapter = TypeAdapter(Partition)
    assert adapter.validate_python({"kind": "iid"}) == IID
    assert adapter.validate_python({"kind": "label-proportions", "level": "severe"}) == SEVERE
    assert adapter.validate_python({"kind": "column", "column": "film"}) == FILM
    assert adapter.validate_python({"kind": "dirichlet", "alpha": 1}) == DirichletPartition(alpha=1)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "iid", "alpha": 1},
        {"kind": "dirichlet"},
        {"kind": "dirichlet", "alpha": 0},
        {"kind": "column", "column": ""},
        {"kind": "label-proportions"},
        {"kind": "label-proportions", "level": "severe", "proportions": [[0.5, 0.5]]},
        {"kind": "label-proportions", "proportions": [[0.5, 0.6]]},
        {"kind": "label-proportions", "proportions": [[1.5, -0.5]]},
        {"kind": "label-proportions", "proportions": []},
        {"kind": "other"},
    ],
)
def test_configs_that_mean_nothing_are_refused(config):
    with pytest.raises(ValidationError):
        TypeAdapter(Partition).validate_python(config)
