import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.tasks.dataset import Table, split, table_from_rows

SEED = Seed(7)


def table(rows=10, **changes):
    fields = {
        "name": "toy",
        "texts": tuple(f"text {i}" for i in range(rows)),
        "labels": tuple(i % 2 for i in range(rows)),
        "label_names": ("ham", "spam"),
        "groups": {"sender": tuple(f"s{i // 2}" for i in range(rows))},
    }
    return Table(**(fields | changes))


def build(rows, **options):
    return table_from_rows(rows, **({"name": "toy.csv", "text": "t", "label": "y"} | options))


@pytest.mark.parametrize("changes", [{"labels": (0,)}, {"labels": (2,) * 10}, {"groups": {"sender": ()}}])
def test_columns_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="toy"):
        table(**changes)


def test_fingerprint_is_the_hash_of_the_content_alone():
    content = [["a"], [0], ["x", "y"], {"g": ["é"]}]
    made = Table("any", ("a",), (0,), ("x", "y"), {"g": ("é",)})
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    assert made.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert table(name="other", dropped=3).fingerprint == table().fingerprint


@pytest.mark.parametrize(
    "changes",
    [{"texts": ("other",) * 10}, {"labels": (0,) * 10}, {"label_names": ("a", "b")}, {"groups": {}}],
)
def test_fingerprint_changes_with_every_part(changes):
    assert table(**changes).fingerprint != table().fingerprint


def test_take_and_counts():
    part = table().take(np.array([3, 0]))
    assert (part.texts, part.labels, part.groups) == (("text 3", "text 0"), (1, 0), {"sender": ("s1", "s0")})
    assert table(3).label_counts == (2, 1)
    assert table(3, label_names=("a", "b", "c")).label_counts == (2, 1, 0)


@given(st.lists(st.sampled_from(["a", "b", " a", "a\n", "c", "A"]), min_size=1))
def test_deduplicated_keeps_the_first_of_each(texts):
    whole = table(len(texts), texts=tuple(texts))
    kept, removed = whole.deduplicated()
    naive = [i for i, t in enumerate(texts) if t.strip() not in [u.strip() for u in texts[:i]]]
    assert kept == whole.take(naive)
    assert (removed.kept, removed.removed) == (tuple(naive), len(texts) - len(naive))


@given(st.integers(0, 8), st.integers(0, 8), st.none() | st.integers(0, 8), st.integers(0, 2**32))
def test_split_is_disjoint_and_exact(test_rows, holdout_rows, clients_rows, root):
    whole = table(30)
    made = split(whole, clients_rows=clients_rows, test_rows=test_rows, holdout_rows=holdout_rows, seed=Seed(root))
    sizes = len(made.test), len(made.holdout), len(made.train)
    rest = 30 - test_rows - holdout_rows
    assert sizes == (test_rows, holdout_rows, rest if clients_rows is None else clients_rows)
    rows = np.concatenate([made.train, made.test, made.holdout])
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(range(30))


def test_split_depends_on_the_seed_and_its_measured_rows_not_on_the_clients():
    few = split(table(30), clients_rows=5, test_rows=5, holdout_rows=5, seed=SEED)
    many = split(table(30), clients_rows=None, test_rows=5, holdout_rows=5, seed=SEED)
    other = split(table(30), clients_rows=5, test_rows=5, holdout_rows=5, seed=Seed(8))
    assert few.test.tolist() == many.test.tolist()
    assert few.holdout.tolist() == many.holdout.tolist()
    assert few.train.tolist() == many.train.tolist()[:5]
    assert few.test.tolist() != other.test.tolist()


@pytest.mark.parametrize("clients_rows", [None, 5])
def test_too_few_rows_are_counted(clients_rows):
    with pytest.raises(UserError, match=r"'toy' has 10 rows; \d\d are asked for .*5 test, 5 held out"):
        split(table(), clients_rows=clients_rows, test_rows=5, holdout_rows=5, seed=SEED)


def test_negative_rows_are_a_programming_error():
    with pytest.raises(ValueError, match="negative"):
        split(table(), clients_rows=1, test_rows=-1, holdout_rows=5, seed=SEED)


@pytest.mark.parametrize(
    ("values", "names", "indices"),
    [
        (["spam", " ham ", "spam"], ("ham", "spam"), (1, 0, 1)),
        ([10, 9, 10], ("9", "10"), (1, 0, 1)),
        ([True, False, True], ("False", "True"), (1, 0, 1)),
    ],
)
def test_labels_are_indexed_in_sorted_order(values, names, indices):
    made = build([{"t": f"t{i}", "y": value} for i, value in enumerate(values)])
    assert (made.label_names, made.labels) == (names, indices)


def test_a_given_order_of_labels_is_kept():
    made = build([{"t": "a", "y": "x"}, {"t": "b", "y": "w"}], label_order=["x", "v", "w"])
    assert (made.label_names, made.labels) == (("x", "v", "w"), (0, 2))


def test_empty_rows_are_left_out_and_counted():
    good = [{"t": "a", "y": "0", "g": "x"}, {"t": "b", "y": "1", "g": "y"}]
    bad = [{"t": " ", "y": "0", "g": "x"}, {"t": "c", "y": None, "g": "x"}, {"t": "d", "y": "0"}]
    made = build([*bad, *good], group="g")
    assert (made.texts, made.dropped) == (("a", "b"), 3)
    assert made.groups == {"g": ("x", "y")}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"t": "a", "y": 0.5}], "column 'y' holds float"),
        ([{"t": "a", "y": 1}, {"t": "b", "y": "1"}], "column 'y' holds int and str"),
        ([{"t": "a", "y": 1}, {"t": "b", "y": True}], "column 'y' holds bool and int"),
        (
            [{"t": "a", "y": 1}, {"t": "b", "y": 1}, {"t": "", "y": 2}],
            "only '1' in 2 rows .1 rows were left out",
        ),
        ([], "nothing in 0 rows"),
        ([{"t": "a", "y": 1}, {"t": 5, "y": 2}], "row 2: column 't' holds int, not text"),
        ([{"t": "a", "y": 1}, {"t": "b\ud800", "y": 2}], "row 2: column 't' holds half a surrogate pair"),
    ],
)
def test_rows_that_cannot_be_used_are_told(rows, said):
    with pytest.raises(UserError, match=f"toy.csv.*{said}"):
        build(rows)
