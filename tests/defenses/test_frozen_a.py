import numpy as np
import pytest
import torch

from qlorabench.defenses.frozen_a import FrozenA
from qlorabench.seeding import Seed

from ..federation.systems import protocol_of, system

RANK, WIDTH, MODULES = 8, 384, 40
INITS = ["kaiming", "normal", "orthogonal", "svd"]


def weights(count=MODULES, width=WIDTH):
    rng = np.random.default_rng(1)
    return {f"m{i}": torch.from_numpy(rng.normal(size=(width // 4, width))).float() for i in range(count)}


def started(init, *, seed=0, count=MODULES):
    """Return the start of ``count`` modules; as the harness does, A comes in at its Kaiming draw."""
    rng = Seed(seed, ("kaiming",)).numpy()
    bound = WIDTH**-0.5
    state = {f"m{i}.A": torch.from_numpy(rng.uniform(-bound, bound, (RANK, WIDTH))).float() for i in range(count)}
    state |= {f"m{i}.B": torch.zeros(WIDTH, RANK) for i in range(count)}
    defense = FrozenA(FrozenA.Config(init=init))
    return defense.initialise(state, frozen_weights=weights(count), rng=Seed(seed).numpy())


@pytest.mark.parametrize("init", INITS)
def test_rows_have_a_squared_norm_of_a_third(init):
    a = torch.stack([value for name, value in started(init).items() if name.endswith(".A")]).double()
    squares = a.square().sum(-1).flatten()
    if init in ("orthogonal", "svd"):
        torch.testing.assert_close(squares, torch.full_like(squares, 1 / 3), rtol=1e-5, atol=0)
    else:
        assert abs(float(squares.mean()) - 1 / 3) < 5 * float(squares.std()) / len(squares) ** 0.5
        assert float(squares.std()) < 0.05


@pytest.mark.parametrize("init", ["orthogonal", "svd"])
def test_rows_are_orthogonal(init):
    a = started(init, count=1)["m0.A"].double()
    torch.testing.assert_close(a @ a.T, torch.eye(RANK).double() / 3, rtol=0, atol=1e-6)


def test_svd_rows_are_the_first_right_singular_vectors():
    a, w0 = started("svd", count=1)["m0.A"].double() * 3**0.5, weights(1)["m0"].double()
    values = torch.linalg.svdvals(w0)[:RANK]
    torch.testing.assert_close(w0.T @ w0 @ a.T, a.T * values.square(), rtol=0, atol=1e-2)
    torch.testing.assert_close((w0 @ a.T).norm(dim=0), values, rtol=1e-5, atol=0)


def test_a_normal_start_looks_gaussian():
    a = torch.cat([v.flatten() for n, v in started("normal").items() if n.endswith(".A")]).double()
    z = a * (3 * WIDTH) ** 0.5
    assert abs(float((z**4).mean()) - 3) < 0.1


@pytest.mark.parametrize("init", INITS)
def test_the_start_follows_from_the_seed(init):
    first, again, other = (started(init, seed=s, count=2)["m1.A"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (init == "svd")


@pytest.mark.parametrize("init", ["normal", "orthogonal"])
def test_modules_draw_their_own_start(init):
    state = started(init, count=2)
    assert not torch.equal(state["m0.A"], state["m1.A"])


@pytest.mark.parametrize("init", INITS)
def test_b_starts_at_zero(init):
    assert not any(v.any() for n, v in started(init, count=2).items() if n.endswith(".B"))


@pytest.mark.parametrize("init", INITS)
def test_a_does_not_travel(init):
    facts = protocol_of(system(("frozen-a", {"init": init}))).facts
    assert {s.role for s in facts.travelling} == {"B", "head"}
    assert {s.role for s in facts.full} == {"A", "B", "head"}


def test_the_svd_is_that_of_the_backbone_under_the_adapter(bench):
    spec = system(("frozen-a", {"init": "svd"}))
    start = bench.start(spec, spec.build_defenses())
    inner = bench.model(spec).encoder.get_base_model()
    for name, w0 in ((n, m.base_layer.weight) for n, m in inner.named_modules() if hasattr(m, "base_layer")):
        reach = (w0.double() @ start[f"{name}.A"].double().T * 3**0.5).norm(dim=0)
        torch.testing.assert_close(reach, torch.linalg.svdvals(w0.double())[: len(reach)], rtol=1e-4, atol=0)


@pytest.mark.parametrize("init", ["orthogonal", "svd"])
def test_a_rank_above_the_width_still_fits_its_tensor(bench, init):
    spec = system(("frozen-a", {"init": init}), rank=bench.backbone.width + 8)
    facts = protocol_of(spec).facts
    start = bench.start(spec, spec.build_defenses())
    assert all(tuple(start[s.name].shape) == s.shape for s in facts.full)
