import pytest
import torch

from qlorabench.codecs import CODEBOOKS, allowed_bits, codebook, dynamic_8bit, fp4, normal_float, uniform_int

EVERY = [(name, bits) for name in CODEBOOKS for bits in allowed_bits(name)]


@pytest.mark.parametrize(("name", "bits"), EVERY)
def test_levels_are_ascending_float32_within_one_and_hold_zero(name, bits):
    levels = codebook(name, bits)
    assert levels.dtype == torch.float32
    assert bool((levels[1:] >= levels[:-1]).all())
    assert levels.abs().max() == 1.0
    assert bool((levels == 0).any())
    assert levels.numel() <= max(3, 2**bits)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (1, [-1, 0, 1]),
        (2, [-1, 0, 0.3379, 1]),
        (3, [-1, -0.4786, -0.2171, 0, 0.1609, 0.3379, 0.5626, 1]),
    ],
)
def test_normal_float_matches_the_values_of_fedlpp(bits, expected):
    torch.testing.assert_close(normal_float(bits), torch.tensor(expected).float(), atol=5e-5, rtol=0)


def test_normal_float_of_four_bits_is_nf4():
    # The table printed in appendix E of QLoRA (arXiv 2305.14314), rounded to seven digits.
    lower = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
    upper = [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    torch.testing.assert_close(normal_float(4), torch.tensor(lower + upper), atol=1e-7, rtol=0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_normal_float_has_one_level_more_above_zero_than_below(bits):
    levels = normal_float(bits)
    assert (levels.numel(), int((levels > 0).sum()), int((levels < 0).sum())) == (
        2**bits,
        2 ** (bits - 1),
        2 ** (bits - 1) - 1,
    )


def test_uniform_int_is_symmetric():
    torch.testing.assert_close(uniform_int(3) * 3, torch.arange(-3.0, 4.0))
    assert uniform_int(2).tolist() == [-1, 0, 1]
    assert all(torch.equal(uniform_int(k), -uniform_int(k).flip(0)) for k in range(2, 9))


def test_fp4_holds_zero_twice_and_never_a_negative_zero():
    scaled = (fp4() * 12).tolist()
    assert scaled == pytest.approx([-12, -8, -6, -4, -3, -2, -0.0625, 0, 0, 0.0625, 2, 3, 4, 6, 8, 12])
    assert not bool(torch.signbit(fp4()[7:9]).any())


def test_dynamic_map_is_lopsided():
    levels = dynamic_8bit()
    assert levels.numel() == levels.unique().numel() == 256
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([-0.99296875, 1.0]))
    torch.testing.assert_close(levels[128], torch.tensor(5.5e-7))


@pytest.mark.parametrize(("name", "bits"), [("normal-float", 9), ("fp4", 3), ("dynamic", 4), ("uniform-int", 1)])
def test_a_width_without_a_table_is_refused(name, bits):
    with pytest.raises(ValueError, match=f"'{name}' has no {bits}-bit form"):
        codebook(name, bits)


def test_an_unknown_name_is_answered_with_the_near_one():
    with pytest.raises(ValueError, match="Did you mean 'normal-float'"):
        codebook("normal_float", 4)
