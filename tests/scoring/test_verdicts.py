import numpy as np
import pytest
import torch

from qlorabench.scoring.score import Score
from qlorabench.scoring.verdicts import judge_adapter, judge_membership
from qlorabench.threats.claims import AdapterClaim, MembershipClaim

GAP = Score("utility_gap", 0.05, 0.02, 0.08)
NO_GAP = Score("utility_gap", 0.0, -0.02, 0.02)


def state(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {f"m{i}.{f}": (4, 16) if f == "A" else (16, 4) for i in range(6) for f in "AB"}
    return {name: scale * torch.from_numpy(rng.normal(size=shape)).float() for name, shape in shapes.items()}


def plus(left, right):
    return {name: value + right[name] for name, value in left.items()}


TRUTH = {**state(0), "head.bias": torch.ones(2)}
BROADCAST = {**plus(state(0), state(1, 0.1)), "head.bias": torch.ones(2)}


def judge(recovered, *, truth=TRUTH, broadcast=BROADCAST, public=None, gap=GAP, note=""):
    rng = np.random.default_rng(0)
    options = {"truth": truth, "broadcast": broadcast, "public": public or {}}
    rows = judge_adapter(AdapterClaim(recovered, note=note), **options, scaling=2.0, gap=gap, rng=rng)
    return {row.metric: row for row in rows}


def test_an_exact_broadcast_leaks_everything_without_any_attack():
    found = judge(BROADCAST, truth=BROADCAST)["error_removed"]
    assert (found.leakage, found.leakage_low, found.leakage_high) == (1.0, 1.0, 1.0)
    assert found.value is None
    assert "the broadcast is exact" in found.note


def test_recovering_the_truth_removes_all_of_the_error():
    rows = judge(TRUTH)
    assert (rows["error_removed"].value, rows["error_removed"].leakage) == (1.0, 1.0)
    assert rows["product_error"].value == pytest.approx(0.0, abs=1e-12)
    assert rows["product_error"].control > 0.05


def test_claiming_the_broadcast_removes_none_of_it():
    rows = judge(BROADCAST)
    assert (rows["error_removed"].value, rows["error_removed"].leakage) == (0.0, 0.0)
    assert rows["product_error"].value == pytest.approx(rows["product_error"].control)


def test_half_of_the_way_removes_three_quarters_of_the_squared_error():
    half = {name: (TRUTH[name] + BROADCAST[name]) / 2 for name in TRUTH}
    found = judge(half)["error_removed"]
    assert found.value == pytest.approx(0.75, abs=1e-4)
    assert found.leakage_low == pytest.approx(0.75, abs=1e-3)


def test_a_claim_that_is_worse_than_the_broadcast_is_no_negative_leakage():
    found = (
        judge(state(5))["error_removed"] if "head.bias" in state(5) else judge({**TRUTH, **state(5)})["error_removed"]
    )
    assert found.value < -10
    assert (found.leakage, found.leakage_high) == (0.0, 0.0)


def test_the_head_counts_for_nothing():
    wrong = {**TRUTH, "head.bias": torch.full((2,), 100.0)}
    assert judge(wrong)["error_removed"].value == 1.0


def test_factors_that_do_not_travel_come_from_the_public_start():
    travelling = {name: value for name, value in TRUTH.items() if not name.endswith(".A")}
    public = {name: value for name, value in TRUTH.items() if name.endswith(".A")}
    broadcast = {name: BROADCAST[name] for name in travelling}
    rows = judge(travelling, truth=travelling, broadcast=broadcast, public=public)
    assert rows["product_error"].value == pytest.approx(0.0, abs=1e-12)
    assert rows["product_error"].n == 6
    assert rows["error_removed"].n == 6


def test_a_product_error_is_that_of_b_times_a():
    rows = judge(BROADCAST)
    squares = [
        [torch.linalg.norm(s[f"m{i}.B"].double() @ s[f"m{i}.A"].double() - minus) ** 2 for i, minus in enumerate(base)]
        for s, base in (
            (BROADCAST, [TRUTH[f"m{i}.B"].double() @ TRUTH[f"m{i}.A"].double() for i in range(6)]),
            (TRUTH, [0.0] * 6),
        )
    ]
    naive = float((sum(squares[0]) / sum(squares[1])) ** 0.5)
    assert rows["product_error"].value == pytest.approx(naive, rel=1e-6)


@pytest.mark.parametrize(("gap", "said"), [(GAP, False), (NO_GAP, True)])
def test_without_a_utility_gap_there_was_nothing_to_protect(gap, said):
    rows = judge(BROADCAST, gap=gap, note="a mean")
    assert ("nothing to protect" in rows["error_removed"].note) == said
    assert rows["error_removed"].note.startswith("a mean")
    assert rows["utility_gap"] is gap


def test_a_claim_without_a_travelling_tensor_is_an_error():
    with pytest.raises(KeyError):
        judge({"m0.A": TRUTH["m0.A"]})


def membership(scores, members):
    claim = MembershipClaim(np.asarray(scores, float), note="a note")
    return {row.metric: row for row in judge_membership(claim, members, rng=np.random.default_rng(0))}


def test_scores_that_know_the_truth_leak_it_all():
    members = np.arange(100) % 2 == 0
    rows = membership(members.astype(float), members)
    assert (rows["auc"].value, rows["auc"].leakage) == (1.0, 1.0)
    assert rows["tpr_at_1pct_fpr"].value == 1.0
    assert rows["advantage"].value == 1.0
    assert rows["auc"].headline
    assert rows["auc"].note == "a note"


def test_scores_of_noise_leak_nothing():
    members = np.arange(200) % 2 == 0
    rows = membership(np.random.default_rng(1).normal(size=200), members)
    assert rows["auc"].low < 0.5 < rows["auc"].high
    assert rows["auc"].leakage_low == 0.0
    assert rows["advantage"].leakage_low == 0.0


def test_scores_that_point_the_wrong_way_leak_nothing():
    members = np.arange(100) % 2 == 0
    rows = membership(-members.astype(float), members)
    assert rows["auc"].value == 0.0
    assert rows["auc"].leakage == 0.0
