"""The README's examples are what they say."""

import re
from pathlib import Path

import pytest

from qlorabench.suite.loading import load_suite
from qlorabench.suite.plan import make_plan

from .cli.conftest import SUITE

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_attack_can_be_named_in_a_suite(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(blocks("python")[0])
    (tmp_path / "suite.yaml").write_text(SUITE.replace("[span,", "[mine.py:PlainLoss,"))
    plan = make_plan(load_suite(tmp_path / "suite.yaml"))
    seats = {cell.threat.name for cell in plan.cells if cell.attack and cell.attack.name == "mine.py:PlainLoss"}
    assert seats == {"server", "client", "end-user"}


def test_the_example_of_own_data_is_a_valid_task(tmp_path: Path) -> None:
    task = blocks("yaml")[0]
    rest = "name: mine\nsystems:\n  plain: {}\n"
    (tmp_path / "suite.yaml").write_text(rest + task)
    assert list(load_suite(tmp_path / "suite.yaml").systems) == ["tickets"]


@pytest.mark.parametrize("target", ["quickstart", "test"])
def test_the_commands_it_names_are_make_targets(target: str) -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
