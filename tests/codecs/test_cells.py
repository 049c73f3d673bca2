import pytest
import torch
from hypothesis import given

from qlorabench.codecs import codebook

from .cases import codec, codecs, normal, rng, segments


@given(codecs(), segments())
def test_cells_hold_what_was_encoded(coder, tensors):
    lengths = [len(t) for t in tensors]
    cells = coder.cells(coder.encode(tensors, rng=rng()), lengths=lengths)
    assert [len(c.low) for c in cells] == lengths
    for x, cell in zip(tensors, cells, strict=True):
        assert bool((cell.low <= x).all())
        assert bool((x <= cell.high).all())


@pytest.mark.parametrize("magnitude", [1e-38, 1.2e-38, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_cells_hold_at_the_ends_of_float32(magnitude, rounding):
    x = normal(640).clamp(-1, 1) * magnitude
    coder = codec("normal-float", 8, 64, rounding)
    (cell,) = coder.cells(coder.encode([x], rng=rng()), lengths=[640])
    assert bool(((cell.low <= x) & (x <= cell.high)).all())


def test_cells_hold_midpoints_and_their_neighbours():
    levels = codebook("normal-float", 4)
    ties = (levels[1:] + levels[:-1]) / 2 * 3.7
    above, below = (torch.nextafter(ties, torch.full_like(ties, e)) for e in (9.0, -9.0))
    x = torch.cat([torch.tensor([3.7]), ties, above, below])
    for block_size in (46, 64):
        coder = codec(block_size=block_size)
        (cell,) = coder.cells(coder.encode([x], rng=rng()), lengths=[46])
        assert bool(((cell.low <= x) & (x <= cell.high)).all())


def test_nearest_cells_are_the_midpoints_and_end_at_the_scale():
    x = torch.tensor([4.0, -4.0, 3.9, 0.0, 0.1])
    coder = codec("normal-float", 2, 5)
    (cell,) = coder.cells(coder.encode([x], rng=rng()), lengths=[5])
    middle = codebook("normal-float", 2)[2].item()
    low = torch.tensor([2 * (1 + middle), -4.0, 2 * (1 + middle), -2.0, -2.0])
    high = torch.tensor([4.0, -2.0, 4.0, 2 * middle, 2 * middle])
    # 4, -4 and 3.9 all carry an outermost code, so any of them may be the absmax.
    torch.testing.assert_close(cell.low, low, atol=1e-4, rtol=0)
    torch.testing.assert_close(cell.high, high, atol=1e-4, rtol=0)


def test_stochastic_cells_are_the_neighbouring_levels():
    x = torch.tensor([4.0, -4.0, 0.0])
    coder = codec("uniform-int", 3, 3, "stochastic")
    (cell,) = coder.cells(coder.encode([x], rng=rng()), lengths=[3])
    torch.testing.assert_close(cell.low, torch.tensor([8 / 3, -4.0, -4 / 3]), atol=1e-4, rtol=0)
    torch.testing.assert_close(cell.high, torch.tensor([4.0, -8 / 3, 4 / 3]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_only_outermost_code_of_a_block_is_the_absmax(sign, rounding):
    x = torch.tensor([sign * 2.0, 0.0, 0.0, 0.0])
    coder = codec("normal-float", 2, 4, rounding)
    (cell,) = coder.cells(coder.encode([x], rng=rng()), lengths=[4])
    assert float(cell.high[0] - cell.low[0]) < 1e-5
    assert float(cell.low[0]) <= sign * 2.0 <= float(cell.high[0])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_an_unknown_scale_widens_the_cells(rounding):
    x = normal(64 * 100)
    widths = []
    for double in (False, True):
        coder = codec(rounding=rounding, double_quantization=double)
        (cell,) = coder.cells(coder.encode([x], rng=rng()), lengths=[6400])
        widths.append(float((cell.high - cell.low).mean()))
    assert widths[0] < widths[1] < 1.1 * widths[0]
