import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlorabench.scoring.recovery import FactorNames, error_removed, relative_error_of_products

PAIRS = {"q": FactorNames("q.A", "q.B"), "v": FactorNames("v.A", "v.B")}


def adapter(seed, *, rank=2, d_in=7, d_out=5, size=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"A": (rank, d_in), "B": (d_out, rank)}
    return {f"{m}.{f}": size * rng.normal(size=shape) for m in "qv" for f, shape in shapes.items()}


def naive(truth, other, *, scaling):
    products = [[scaling * side[p.b] @ side[p.a] for p in PAIRS.values()] for side in (truth, other)]
    error = sum(np.sum((x - y) ** 2) for x, y in zip(*products, strict=True))
    return np.sqrt(error / sum(np.sum(x**2) for x in products[0]))


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(0, 99), st.floats(0.1, 8))
def test_products_agree_with_the_naive_norm(sizes, seed, scaling):
    rank, other_rank, d_in, d_out = sizes
    truth = adapter(seed, rank=rank, d_in=d_in, d_out=d_out)
    other = adapter(seed + 1, rank=other_rank, d_in=d_in, d_out=d_out)
    found = relative_error_of_products(truth, other, pairs=PAIRS, scaling=scaling)
    assert found.value == pytest.approx(naive(truth, other, scaling=scaling), rel=1e-9)
    for pair, (_, true) in zip(PAIRS.values(), found.squares, strict=True):
        assert true == pytest.approx(np.sum((scaling * truth[pair.b] @ truth[pair.a]) ** 2))


def test_products_ignore_the_factorisation():
    truth, turn = adapter(0), np.array([[2.0, 1.0], [1.0, 3.0]])
    same = {k: turn @ v if k.endswith("A") else v @ np.linalg.inv(turn) for k, v in truth.items()}
    assert relative_error_of_products(truth, same, pairs=PAIRS, scaling=2).value < 1e-14


def test_small_errors_are_not_drowned():
    truth = adapter(0)
    other = {name: array * (1 + 1e-11) if name.endswith("B") else array for name, array in truth.items()}
    found = relative_error_of_products(truth, other, pairs=PAIRS, scaling=1)
    assert found.value == pytest.approx(1e-11, rel=1e-3)


def test_modules_add_up_and_carry_an_interval():
    truth = adapter(0)
    other = truth | {"q.B": 0 * truth["q.B"]}
    found = relative_error_of_products(truth, other, pairs=PAIRS, scaling=1)
    assert found.by_module == pytest.approx({"q": 1.0, "v": 0.0}, abs=1e-14)
    assert found.value == pytest.approx(np.sqrt(found.squares[0, 0] / found.squares[:, 1].sum()))
    interval = found.interval(rng=np.random.default_rng(0))
    assert interval.n == 2
    assert interval.low <= found.value <= interval.high


def test_a_true_product_of_zero_has_no_relative_error():
    truth = {name: 0 * array if name.endswith("B") else array for name, array in adapter(0).items()}
    found = relative_error_of_products(truth, adapter(1), pairs=PAIRS, scaling=1)
    assert found.value is None
    assert found.by_module == {"q": None, "v": None}
    assert found.interval(rng=np.random.default_rng(0)).value is None


def test_products_refuse_what_does_not_fit():
    truth = adapter(0)
    for wrong in ({"q.A": truth["q.A"][:1]}, {"q.A": truth["q.A"][:, :3]}, {"q.A": truth["q.A"] * np.nan}):
        with pytest.raises(ValueError, match=r"rank|dimension|finite"):
            relative_error_of_products(truth, truth | wrong, pairs=PAIRS, scaling=1)


def test_error_removed_in_closed_form():
    truth = adapter(0)
    broadcast, recovered = ({k: v + offset for k, v in truth.items()} for offset in (0.2, -0.1))
    found = error_removed(truth, broadcast, recovered)
    assert found.value == pytest.approx(0.75)
    assert (found.broadcast_mse, found.recovered_mse) == pytest.approx((0.04, 0.01))
    assert found.entries == 2 * (2 * 7 + 5 * 2)
    assert error_removed(truth, broadcast, broadcast).value == 0.0
    assert error_removed(truth, broadcast, truth).value == 1.0
    assert error_removed(truth, recovered, broadcast).value == pytest.approx(-3)


def test_half_precision_is_compared_in_float64():
    truth = {"w": np.full(4, 3e4, np.float16)}
    found = error_removed(truth, {"w": -truth["w"]}, truth)
    assert found.broadcast_mse == pytest.approx(float(2 * truth["w"][0].astype(np.float64)) ** 2)


def test_an_exact_broadcast_leaves_nothing_to_remove():
    found = error_removed(adapter(0), adapter(0), adapter(1))
    assert found.value is None
    assert "exact" in found.reason
    assert "no entries" in error_removed({}, {}, {}).reason


def test_error_removed_tells_every_problem_at_once():
    truth = adapter(0)
    broadcast = truth | {"q.A": truth["q.A"][:1]}
    recovered = {k: v for k, v in truth.items() if k != "v.B"} | {"q.B": truth["q.B"] * np.inf}
    with pytest.raises(ValueError, match=r"broadcast: q\.A is .*recovered: v\.B stands .*q\.B is not finite"):
        error_removed(truth, broadcast, recovered)
