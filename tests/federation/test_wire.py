import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.errors import UserError
from qlorabench.federation import wire
from qlorabench.federation.state import Layout, TensorSpec

from .systems import random_state

FACTORS = (TensorSpec("m.A", (2, 5), "A"), TensorSpec("m.B", (3, 2), "B"))
HEAD = (TensorSpec("head.weight", (2, 4), "head"), TensorSpec("head.bias", (2,), "head"))
WITH_HEAD = Layout((*FACTORS, *HEAD))


@pytest.mark.parametrize(
    ("specs", "entries"),
    [((*FACTORS, *HEAD), {"adapter", "head"}), (FACTORS, {"adapter"}), (FACTORS[1:], {"adapter"}), (HEAD, {"head"})],
)
def test_a_state_comes_back_bit_by_bit(specs, entries):
    layout = Layout(specs)
    state = random_state(layout)
    payload = wire.pack(state, layout)
    assert set(payload) == entries
    back = wire.unpack(wire.from_bytes(wire.to_bytes(payload)), layout)
    assert list(back) == layout.names
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_bytes_do_not_depend_on_the_order_of_entries():
    payload = wire.pack(random_state(WITH_HEAD), WITH_HEAD)
    assert wire.to_bytes(payload) == wire.to_bytes(dict(reversed(payload.items())))


def test_entries_are_read_in_the_same_order_every_time():
    data = wire.to_bytes({f"layer.{i}.B": torch.zeros(1) for i in range(30)})
    assert len({tuple(wire.from_bytes(data)) for _ in range(5)}) == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float16, torch.float32, torch.int64])
def test_every_type_of_number_is_kept(dtype):
    tensor = torch.arange(7).to(dtype)
    back = wire.from_bytes(wire.to_bytes({"x": tensor}))["x"]
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_a_tensor_that_is_not_contiguous_can_be_sent():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(wire.from_bytes(wire.to_bytes({"x": tensor}))["x"], tensor)


WHOLE = wire.to_bytes(wire.pack(random_state(WITH_HEAD), WITH_HEAD))


@given(st.integers(0, len(WHOLE) - 1))
def test_bytes_that_were_cut_short_are_refused(kept):
    with pytest.raises(UserError, match=f"a message of {kept} bytes is damaged"):
        wire.from_bytes(WHOLE[:kept])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_container_are_refused(data):
    with pytest.raises(UserError):
        wire.from_bytes(data)


def test_a_payload_without_an_expected_entry_is_refused():
    payload = wire.pack(random_state(WITH_HEAD), WITH_HEAD)
    del payload["head"]
    with pytest.raises(ValueError, match="no entry 'head'"):
        wire.unpack(payload, WITH_HEAD)


def test_a_payload_of_another_size_is_refused():
    payload = wire.pack(random_state(WITH_HEAD), WITH_HEAD)
    with pytest.raises(ValueError, match="values for an adapter of 16"):
        wire.unpack({**payload, "adapter": payload["adapter"][1:]}, WITH_HEAD)
