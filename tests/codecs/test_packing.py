import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.codecs import bits_per_code, pack, packed_bytes, unpack


@st.composite
def coded(draw):
    levels = draw(st.integers(2, 256))
    return levels, draw(st.lists(st.integers(0, levels - 1), max_size=70))


def tensor(values):
    return torch.tensor(values, dtype=torch.uint8)


def naive(codes, *, levels):
    """One big integer, little end first."""
    if levels == 3:
        groups = [codes[i : i + 5] for i in range(0, len(codes), 5)]
        return [sum(c * 3**j for j, c in enumerate(group)) for group in groups]
    width = (levels - 1).bit_length()
    number = sum(code << (width * i) for i, code in enumerate(codes))
    return list(number.to_bytes(-(-len(codes) * width // 8), "little"))


@given(coded())
def test_packing_matches_one_big_integer_and_comes_back(case):
    levels, codes = case
    packed = pack(tensor(codes), levels=levels)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == naive(codes, levels=levels)
    assert packed.numel() == packed_bytes(len(codes), levels=levels)
    assert unpack(packed, levels=levels, count=len(codes)).tolist() == codes


@given(st.lists(st.integers(0, 2), max_size=40))
def test_ternary_comes_back(codes):
    packed = pack(tensor(codes), levels=3)
    assert packed.tolist() == naive(codes, levels=3)
    assert unpack(packed, levels=3, count=len(codes)).tolist() == codes


@pytest.mark.parametrize(
    ("levels", "bits"), [(2, 1), (3, 1.6), (4, 2), (5, 3), (7, 3), (16, 4), (17, 5), (255, 8), (256, 8)]
)
def test_bits_per_code_is_what_long_streams_cost(levels, bits):
    assert bits_per_code(levels) == bits
    assert packed_bytes(4000, levels=levels) * 8 == 4000 * bits


@pytest.mark.parametrize("levels", [1, 257])
def test_a_code_has_two_to_256_levels(levels):
    with pytest.raises(ValueError, match="2 to 256 levels"):
        bits_per_code(levels)


def test_codes_beyond_the_levels_are_refused_on_both_sides():
    with pytest.raises(ValueError, match="codes run from 0 to 4, found 5"):
        pack(tensor([1, 5]), levels=5)
    with pytest.raises(ValueError, match="codes run from 0 to 4, found 7"):
        unpack(tensor([7]), levels=5, count=1)
    with pytest.raises(ValueError, match="at most 242, found 250"):
        unpack(tensor([250]), levels=3, count=5)


def test_sizes_and_types_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"9 codes of 16 levels take uint8 of shape \(5,\)"):
        unpack(tensor([0, 0]), levels=16, count=9)
    with pytest.raises(ValueError, match="flat uint8"):
        pack(torch.zeros(3, dtype=torch.int64), levels=4)
