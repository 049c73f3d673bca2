import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.records.leaderboard import details, leaderboard
from qlorabench.records.over_seeds import Estimate, over_seeds
from qlorabench.records.results import results_of
from tests.records.rows import costs, leak, lost, record


def row_of(records, system="plain"):
    return next(row for part in leaderboard(records).tasks for row in part.rows if row.system == system)


def leak_of(*records, goal="membership"):
    return row_of(records).leaks[goal]


def test_costs_of_one_seed():
    row = row_of(costs(epsilon=4.0))
    server = row.utility_server
    assert (server.state, server.value, server.low, server.high) == ("measured", 0.84, 0.84 - 0.02, 0.84 + 0.02)
    assert (server.control, server.learned) == (0.6, True)
    assert (row.utility_client.value, row.utility_client.low) == (0.82, None)
    assert (row.bytes_down_client_round.value, row.bytes_up_client_round.value) == (12_345.0, 512.0)
    assert (row.bytes_total.value, row.epsilon.value) == (4_560_000.0, 4.0)


@pytest.mark.parametrize("epsilon", [None, math.inf])
def test_epsilon_without_dp_is_missing(epsilon):
    assert (row_of(costs(epsilon=epsilon)).epsilon.value, row_of([record()]).epsilon.state) == (None, "not run")


def test_not_learned_with_any_seed_is_marked():
    row = row_of([*costs(), *costs(seed=1, validated=False)])
    assert (row.utility_server.learned, row.utility_client.learned) == (False, True)


def test_seeds_are_averaged_with_the_widest_interval():
    row = row_of([*costs(server=0.8, epsilon=2.0), *costs(seed=1, server=0.9, client=0.7, epsilon=3.0)])
    assert row.utility_server.value == pytest.approx(0.85)
    assert (row.utility_server.low, row.utility_server.high) == pytest.approx((0.78, 0.92))
    assert (row.utility_client.value, row.utility_client.low, row.utility_client.high) == (0.76, 0.7, 0.82)
    assert row.epsilon.value == 3.0, "a guarantee is as good as its worst"


@pytest.mark.parametrize("status", ["failed", "timeout", "unsupported"])
def test_no_mean_over_the_seeds_that_are_left(status):
    failed = record(seed=1, metric="", value=None, status=status, note="Traceback\n  x\nValueError: why\n")
    row = row_of([*costs(), failed])
    accuracy = row.utility_server
    assert (accuracy.state, accuracy.value, accuracy.lost_seeds) == (status, None, 1)
    assert accuracy.reasons == (f"{status}: ValueError: why",)
    assert (row.bytes_total.state, row.bytes_total.value) == ("not run", None)


def test_worst_is_the_highest_of_the_measured_leaks_then_the_surest():
    chance = leak(1.0, 0.0, 1.0, attack="chance")
    firm = leak(0.5, 0.4, 0.7, attack="firm", threat="server")
    high = leak(0.9, 0.1, 1.0, attack="high")
    surer = leak(0.9, 0.2, 1.0, attack="surer")
    worst = leak_of(chance, firm, high, surer)
    assert (worst.attack, worst.threat, worst.value, worst.low, worst.high) == ("surer", "client", 0.9, 0.2, 1.0)
    assert (worst.state, worst.metric, worst.cells) == ("measured", "auc", {"measured": 4})


def test_where_no_leak_is_measured_the_highest_stands():
    worst = leak_of(leak(0.2, 0.0, 0.5, attack="low"), leak(0.4, 0.0, 0.9, attack="high"))
    assert (worst.attack, worst.value, worst.low) == ("high", 0.4, 0.0)


def test_goals_are_kept_apart_and_only_headlines_count():
    records = [
        leak(0.2, 0.1),
        leak(0.9, 0.8, metric="advantage", headline=False),
        leak(0.4, goal="adapter", attack="a"),
    ]
    leaks = row_of(records).leaks
    assert (leaks["membership"].value, leaks["adapter"].value) == (0.2, 0.4)
    assert (leaks["reconstruction"].state, leaks["reconstruction"].value) == ("not run", None)


def test_low_and_not_validated_is_no_number():
    cell = leak_of(leak(0.05, 0.0, 0.2, validated=False))
    assert (cell.state, cell.value) == ("not validated", None)


def test_a_low_number_counts_by_the_headline_that_leaks_on_the_twin():
    largest, mean = (
        leak(0.0, 0.0, high, goal="reconstruction", validated=validated, metric=metric, note=note)
        for metric, high, validated, note in (
            ("token_recall", 0.05, False, "nothing claimed; client 0 of 9"),
            ("token_recall_clients", 0.5, True, "mean over 9 clients"),
        )
    )
    found = row_of([largest, mean]).leaks["reconstruction"]
    assert (found.state, found.metric, found.high) == ("measured", "token_recall_clients", 0.5)
    assert (found.validated, found.note) == (True, "nothing claimed; mean over 9 clients")
    neither = row_of([largest, replace(mean, validated=False)]).leaks["reconstruction"]
    assert (neither.state, neither.value) == ("not validated", None)


def test_a_measured_leak_counts_whatever_the_twin_did():
    cell = leak_of(leak(0.4, 0.3, 0.5, validated=False, attack="opened"), leak(0.1, 0.05, 0.2))
    assert (cell.state, cell.value, cell.attack, cell.validated) == ("measured", 0.4, "opened", False)


@pytest.mark.parametrize("status", ["failed", "timeout", "unsupported"])
def test_a_cell_alone_reads_as_its_status(status):
    cell = leak_of(lost(status))
    assert (cell.state, cell.value) == (status, None)
    assert cell.reasons == (f"loss from client {status}: why {status}",)


def test_what_gave_no_number_is_counted_beside_the_worst():
    cell = leak_of(
        leak(0.31, 0.2, 0.4),
        lost("failed", attack="a"),
        lost("failed", attack="b"),
        lost("timeout", attack="c"),
        lost("unsupported", attack="d"),
        leak(None, attack="e", note="no candidates"),
        leak(0.0, 0.0, 0.1, attack="f", validated=False),
    )
    assert (cell.state, cell.value) == ("measured", 0.31)
    assert cell.cells == {
        "measured": 1, "not validated": 1, "unsupported": 1, "failed": 2, "timeout": 1, "unscored": 1,
    }  # fmt: skip
    assert "e from client unscored: no candidates" in cell.reasons


def test_a_system_that_an_attack_was_not_run_on_says_so():
    records = [leak(0.5, 0.4), leak(0.2, 0.1, attack="span"), leak(0.1, 0.05, system="other")]
    assert row_of(records, "other").leaks["membership"].cells == {"measured": 1, "not run": 1}


def test_leakage_over_seeds_is_the_mean_with_an_interval_over_seeds():
    cell = leak_of(leak(0.2, 0.1, 0.3), leak(0.4, 0.2, 0.7, seed=1))
    found = over_seeds([Estimate(0.2, 0.1, 0.3), Estimate(0.4, 0.2, 0.7)])
    assert (cell.value, cell.low, cell.high) == (pytest.approx(0.3), found.low, found.high)
    assert (cell.seeds, cell.lost) == (2, {})


@pytest.mark.parametrize(
    ("other", "state"),
    [(lost("failed", seed=1), "failed"), (lost("timeout", seed=1), "timeout"), (leak(None, seed=1), "unscored")],
)
def test_a_lost_seed_is_said_beside_the_mean_of_the_others(other, state):
    cell = leak_of(leak(0.2, 0.1, 0.3), other, leak(0.4, 0.2, 0.7, seed=2))
    assert (cell.value, cell.seeds, cell.lost) == (pytest.approx(0.3), 3, {state: 1})
    assert cell.cells == {"measured": 2, state: 1}


def test_a_seed_that_shows_nothing_is_in_the_mean():
    cell = leak_of(leak(0.2, 0.1, 0.3), leak(0.0, 0.0, 0.1, seed=1), leak(0.4, 0.3, 0.5, seed=2))
    assert (cell.value, cell.lost, cell.cells) == (pytest.approx(0.2), {}, {"measured": 3})


def test_the_worst_attack_is_chosen_by_its_mean_over_seeds():
    steady = [leak(0.5, 0.4, 0.6, attack="steady", seed=s) for s in range(3)]
    lucky = [leak(v, v - 0.05, v + 0.05, attack="lucky", seed=s) for s, v in enumerate((0.9, 0.05, 0.05))]
    assert (leak_of(*steady, *lucky).attack, leak_of(*steady, *lucky).value) == ("steady", pytest.approx(0.5))


def test_the_headline_is_chosen_by_its_mean_over_seeds():
    rows = [
        leak(value, low, 1.0, goal="reconstruction", metric=metric, seed=seed)
        for metric, values in (("token_recall", (0.9, 0.1, 0.1)), ("token_recall_clients", (0.4, 0.5, 0.6)))
        for seed, value in enumerate(values)
        for low in [value / 2]
    ]
    found = leak_of(*rows, goal="reconstruction")
    assert (found.metric, found.value) == ("token_recall_clients", pytest.approx(0.5))


def test_systems_tasks_and_suites_keep_their_order():
    records = [*costs("z"), *costs("a"), *costs("m")]
    second = [replace(r, task="u", key=f"u{r.key}") for r in costs("b")]
    third = [replace(r, suite="q", key=f"q{r.key}") for r in costs("c", seed=7)]
    board = leaderboard(records + second + third)
    assert [(t.suite, t.task, t.seeds) for t in board.tasks] == [("s", "t", (0,)), ("s", "u", (0,)), ("q", "t", (7,))]
    assert [row.system for row in board.tasks[0].rows] == ["z", "a", "m"]


def test_nothing_gives_an_empty_board():
    assert leaderboard([]).tasks == ()


def test_a_cell_tried_again_counts_once():
    cell = leak_of(lost("failed"), leak(0.3, 0.2, 0.4))
    assert (cell.value, cell.cells) == (0.3, {"measured": 1})
    (part,) = results_of([lost("failed"), leak(0.3, 0.2, 0.4), record()])
    assert details(part.records) == [leak(0.3, 0.2, 0.4)]


shares = st.floats(0, 1, allow_subnormal=False)
cells = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), shares, shares, st.booleans())


@given(st.lists(cells, min_size=1, max_size=8, unique_by=lambda cell: cell[:2]))
def test_worst_agrees_with_a_naive_loop(drawn):
    records = [
        leak(max(a, b), min(a, b), 1.0, threat=threat, attack=attack, validated=validated)
        for threat, attack, a, b, validated in drawn
    ]
    worst = None
    for r in records:
        counts = r.validated or r.leakage_low > 0
        rank = (r.leakage_low > 0, r.leakage, r.leakage_low)
        if counts and (worst is None or rank > (worst.leakage_low > 0, worst.leakage, worst.leakage_low)):
            worst = r
    cell = leak_of(*records)
    if worst is None:
        assert cell.state == "not validated"
    else:
        assert (cell.threat, cell.attack, cell.value) == (worst.threat, worst.attack, pytest.approx(worst.leakage))
