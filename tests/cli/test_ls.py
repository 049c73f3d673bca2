"""What is installed is listed whatever it says of itself, and one that is broken hides no other."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

MODULE = """\
from qlorabench.threats.attack import Attack, AttackConfig
class Silent(Attack[AttackConfig]):
    Config = AttackConfig
Silent.__doc__ = None
class Hostile(Attack[AttackConfig]):
    '''[red]clears\\x1b[2J the \\u202escreen[/x]'''
    Config = AttackConfig
class NoConfig(Attack[AttackConfig]): ...
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "listed_here.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    values = {"silent": "listed_here:Silent", "hostile\x1b[1m": "listed_here:Hostile", "bare": "listed_here:NoConfig"}
    values |= {"gone": "no_such_module_here:X", "whole": "listed_here:Hostile"}
    entries = tuple(EntryPoint(name, value, "qlorabench.attacks") for name, value in values.items())
    monkeypatch.setattr("qlorabench.plugins._installed", lambda group: entries)


def test_odd_and_broken_plugins_are_listed_with_the_others(invoke, tmp_path: Path, installed) -> None:
    done = invoke("ls", "attacks", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("broken: ") == 2
    assert "no_such_module_here" in done.stdout
    assert "[red]clears\\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    for name in ("silent", "bare", "gone", "whole"):
        assert f"\n{name}\n" in f"\n{done.stdout}"
