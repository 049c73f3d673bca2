import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.federation.state import (
    Layout,
    TensorSpec,
    add,
    max_abs_difference,
    subtract,
    weighted_mean,
)

from .systems import random_state

sizes = st.integers(1, 6)


@st.composite
def layouts(draw):
    specs = []
    for i in range(draw(st.integers(0, 4))):
        rank, d_in, d_out = draw(sizes), draw(sizes), draw(sizes)
        specs += [TensorSpec(f"layer.{i}.A", (rank, d_in), "A"), TensorSpec(f"layer.{i}.B", (d_out, rank), "B")]
    if draw(st.booleans()):
        specs += [TensorSpec("head.weight", (2, draw(sizes)), "head"), TensorSpec("head.bias", (2,), "head")]
    return Layout(tuple(specs))


@given(layouts(), st.integers(0, 100))
def test_a_flat_vector_gives_the_same_tensors_back(layout, seed):
    state = random_state(layout, seed=seed)
    for flat in (layout.flatten(state), layout.segments(state)):
        back = layout.unflatten(flat)
        assert list(back) == layout.names
        assert all(torch.equal(back[name], state[name]) for name in state)


@given(layouts())
def test_counts_agree_with_the_tensors(layout):
    state = random_state(layout)
    assert layout.lengths == [state[name].numel() for name in layout.names]
    assert layout.count == layout.flatten(state).numel()


@given(layouts())
def test_roles_divide_a_layout(layout):
    parts = [layout.only(role) for role in ("A", "B", "head")]
    assert sum(part.count for part in parts) == layout.count
    assert layout.only("A", "B").names == [s.name for s in layout if s.role != "head"]
    assert len(layout.modules()) == len(parts[0])


@given(layouts())
def test_a_layout_survives_json(layout):
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_a_state_is_read_in_the_order_of_the_layout_and_not_of_the_state():
    layout = Layout((TensorSpec("b.A", (1, 1), "A"), TensorSpec("a.A", (1, 1), "A")))
    state = {"a.A": torch.tensor([[1.0]]), "b.A": torch.tensor([[2.0]])}
    assert layout.flatten(state).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("extra", [-1, 1])
def test_too_few_or_too_many_values_are_refused(extra):
    layout = Layout((TensorSpec("m.A", (2, 3), "A"),))
    with pytest.raises(ValueError, match=f"{6 + extra} values for an adapter of 6"):
        layout.unflatten(torch.zeros(6 + extra))


def test_a_missing_tensor_is_refused():
    layout = Layout((TensorSpec("m.A", (2, 3), "A"), TensorSpec("m.B", (3, 2), "B")))
    with pytest.raises(KeyError, match=r"m\.B"):
        layout.flatten({"m.A": torch.zeros(2, 3)})


def test_unflattened_tensors_share_no_memory_with_the_vector():
    layout = Layout((TensorSpec("m.A", (2, 2), "A"),))
    flat = torch.zeros(4)
    state = layout.unflatten(flat)
    flat += 1
    assert not state["m.A"].any()


@given(layouts(), st.lists(st.floats(0.1, 100), min_size=1, max_size=5))
def test_weighted_mean_is_the_naive_one(layout, weights):
    states = [random_state(layout, seed=i) for i in range(len(weights))]
    mean = weighted_mean(states, weights)
    for name in layout.names:
        values = [state[name].numpy().astype(np.float64) for state in states]
        naive = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        np.testing.assert_allclose(mean[name].numpy(), naive, rtol=1e-6, atol=1e-7)
        assert mean[name].dtype == torch.float32


def test_weighted_mean_takes_as_many_weights_as_states():
    with pytest.raises(ValueError, match="zip"):
        weighted_mean([{"m.A": torch.zeros(1)}], [1.0, 1.0])


def test_a_sum_keeps_what_the_other_side_lacks():
    left = {"m.A": torch.tensor([1.0]), "m.B": torch.tensor([2.0])}
    total = add(left, {"m.A": torch.tensor([10.0])}, scale=0.5)
    assert total["m.A"].item() == 6.0
    assert total["m.B"].item() == 2.0
    assert total["m.B"] is not left["m.B"]


def test_a_difference_is_taken_over_the_left_side():
    gap = subtract({"m.A": torch.tensor([3.0])}, {"m.A": torch.tensor([1.0]), "m.B": torch.tensor([1.0])})
    assert {name: value.item() for name, value in gap.items()} == {"m.A": 2.0}


def test_the_largest_difference_is_over_shared_tensors():
    left = {"m.A": torch.tensor([1.0, -4.0]), "m.B": torch.tensor([9.0])}
    assert max_abs_difference(left, {"m.A": torch.tensor([0.5, 1.0])}) == 5.0
    assert max_abs_difference(left, {}) == 0.0


def test_a_tensor_that_is_not_a_number_differs():
    same, broken = {"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.zeros(1), "b": torch.tensor([torch.nan])}
    assert max_abs_difference(same, broken) != 0.0
