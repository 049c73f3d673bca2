"""The positive control of a defended system: the same training without its defenses."""

from pathlib import Path

import pytest

from qlorabench.suite.loading import load_suite
from qlorabench.suite.plan import Plan, make_plan

SUITE = """
name: twins
tasks:
  t:
    backbone: {{name: toy}}
    data: {{source: toy, test_rows: 40, holdout_rows: 40}}
    rows_per_client: 20
systems:
  plain: {{}}
{systems}
threats: [server]
attacks: [calibrated-loss]
"""
LARGE = "override: {training: {batch_size: 64, rounds: 3}}"


@pytest.fixture
def plan_of(tmp_path: Path):
    def plan(*systems: str) -> Plan:
        path = tmp_path / "twins.yaml"
        path.write_text(SUITE.format(systems="\n".join(f"  {line}" for line in systems)))
        return make_plan(load_suite(path))

    return plan


def twins(plan: Plan) -> dict[str, str]:
    return {cell.system.name: cell.system.twin for cell in plan.cells}


def test_every_system_has_a_twin_on_its_own_training(plan_of) -> None:
    plan = plan_of(
        "quantized: {defenses: [quantized-broadcast]}",
        f"private: {{defenses: [dp-sgd], {LARGE}}}",
        f"everything: {{defenses: [frozen-a, dp-sgd], {LARGE}}}",
        "slow: {defenses: [frozen-a], override: {training: {optimizer: {lr: 0.01}}}}",
    )
    assert twins(plan) == {
        "plain": "plain",
        "quantized": "plain",
        "private": "twin-of-private",
        "everything": "twin-of-private",
        "slow": "twin-of-slow",
        "twin-of-private": "twin-of-private",
        "twin-of-slow": "twin-of-slow",
    }
    cells = {(cell.system.name, cell.kind): cell for cell in plan.cells}
    for cell in plan.cells:
        twin = cells[cell.system.twin, cell.kind]
        assert not twin.system.defenses
        assert twin.system.task == cell.system.task


def test_an_undefended_system_of_the_suite_is_taken_however_it_came_by_its_settings(plan_of) -> None:
    plan = plan_of(
        f"plain-large: {{{LARGE}}}",
        f"private: {{defenses: [dp-sgd], {LARGE}}}",
        "as-it-is: {defenses: [frozen-a], override: {training: {rounds: 20}}}",
    )
    assert twins(plan)["private"] == "plain-large"
    assert twins(plan)["as-it-is"] == "plain"
    assert plan.added_twins == []


def test_an_added_twin_is_said_and_takes_no_name_of_the_suite(plan_of) -> None:
    plan = plan_of(f"private: {{defenses: [dp-sgd], {LARGE}}}", "twin-of-private: {defenses: [frozen-a]}")
    assert twins(plan)["private"] == "twin-of-private-2"
    assert twins(plan)["twin-of-private"] == "plain"
    (line,) = plan.added_twins
    assert "'twin-of-private-2' is added" in line
    assert "the training of private" in line
