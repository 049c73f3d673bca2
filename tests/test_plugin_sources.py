"""An edit of anything that a plug-in is made of changes its version, and an edit of anything else does not."""

import sys
from pathlib import Path

import pytest

from qlorabench.errors import UserError
from qlorabench.plugin_sources import sources
from qlorabench.plugins import Origin, plugin_version, registry

FILES = {
    "mine/__init__.py": "from .deep.core import answer\n",
    "mine/attacks/__init__.py": "",
    "mine/attacks/first.py": "from ..deep.core import answer\nfrom . import near\nclass Mine: ...\n",
    "mine/attacks/near.py": "def late():\n    import mine.absolute\n    from mine import lazy\n",
    "mine/absolute.py": "from .starred import *\n",
    "mine/lazy.py": "",
    "mine/deep/__init__.py": "from .handed_on import name\n",
    "mine/deep/core.py": "answer = 1\n",
    "mine/deep/handed_on.py": "name = 1\n",
    "mine/starred/__init__.py": "__all__ = ['listed']\n",
    "mine/starred/listed.py": "",
    "mine/unused/__init__.py": "",
    "mine/attacks/unused.py": "",
}
USED = [name for name in FILES if "unused" not in name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def version(folder: Path, name: str = "mine/attacks/first.py:Mine") -> str:
    attacks = registry("attacks", base=folder, entry_points=[])
    return plugin_version(attacks.load(name), origin=attacks.origin(name))


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The same package on Python's path, as that of a distribution: its class and where it comes from."""
    monkeypatch.syspath_prepend(str(folder))
    import mine.attacks.first as module  # type: ignore[import-not-found]

    yield module.Mine, Origin("mine.attacks.first", "d", "1.0")
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.mark.parametrize("edited", USED)
def test_every_module_of_its_package_that_a_file_imports_counts(folder: Path, edited: str) -> None:
    before = version(folder)
    (folder / edited).write_text(FILES[edited] + "# edited\n")
    assert version(folder) != before


def test_modules_that_are_not_imported_do_not_count(folder: Path) -> None:
    before = version(folder)
    for name in set(FILES) - set(USED):
        (folder / name).write_text("# edited\n")
    assert version(folder) == before


@pytest.mark.parametrize("edited", ["mine/__init__.py", "mine/deep/core.py", "mine/lazy.py", "mine/attacks/unused.py"])
def test_an_installed_package_is_followed_in_the_same_way(folder: Path, installed, edited: str) -> None:
    cls, origin = installed
    before = plugin_version(cls, origin=origin)
    (folder / edited).write_text(FILES[edited] + "# edited\n")
    assert (plugin_version(cls, origin=origin) != before) == (edited in USED)


def test_where_a_folder_lies_does_not_count(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import shutil

    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    assert version(other) == version(folder)


def test_two_files_of_one_name_in_two_packages_both_count(folder: Path) -> None:
    before = version(folder)
    # what the one loses the other gains
    (folder / "mine/deep/__init__.py").write_text(FILES["mine/attacks/__init__.py"])
    (folder / "mine/attacks/__init__.py").write_text(FILES["mine/deep/__init__.py"])
    assert version(folder) != before


def test_a_file_that_only_hands_on_a_class_counts_with_the_class(tmp_path: Path) -> None:
    (tmp_path / "front.py").write_text("from .behind import Mine\nMine.rank = 1\n")
    (tmp_path / "behind.py").write_text("class Mine: ...\n")
    before = version(tmp_path, "front.py:Mine")
    (tmp_path / "front.py").write_text("from .behind import Mine\nMine.rank = 2\n")
    between = version(tmp_path, "front.py:Mine")
    (tmp_path / "behind.py").write_text("class Mine: ...  # edited\n")
    assert len({before, between, version(tmp_path, "front.py:Mine")}) == 3


def test_relative_imports_of_a_file_work_and_those_of_two_folders_do_not_meet(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text("from .helper import WHO\nclass Mine:\n    who = WHO\n")
        (tmp_path / name / "helper.py").write_text(f"WHO = '{name}'\n")
    attacks = registry("attacks", base=tmp_path, entry_points=[])
    assert [attacks.load(f"{name}/mine.py:Mine").who for name in ("one", "two")] == ["one", "two"]


def test_what_lies_beside_a_file_and_is_imported_as_if_installed_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from helper_beside import x\n")
    (tmp_path / "helper_beside.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"from \.helper_beside import"):
        registry("attacks", base=tmp_path, entry_points=[]).load("mine.py:Mine")


def test_a_file_whose_name_is_no_module_name_is_hashed_too(tmp_path: Path) -> None:
    (tmp_path / "my-attack.v2.py").write_text("from ._own import x\nclass Mine: ...\n")
    (tmp_path / "_own.py").write_text("x = 1\n")
    before = version(tmp_path, "my-attack.v2.py:Mine")
    (tmp_path / "_own.py").write_text("x = 2\n")
    between = version(tmp_path, "my-attack.v2.py:Mine")
    (tmp_path / "my-attack.v2.py").write_text("from ._own import x\nclass Mine: ...  # edited\n")
    assert len({before, between, version(tmp_path, "my-attack.v2.py:Mine")}) == 3


def test_imports_that_lead_nowhere_or_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine: ...\ndef never():\n    from ...far import x\n    from .mine import Mine\n    import no.such"
    )
    assert version(tmp_path, "mine.py:Mine") == version(tmp_path, "mine.py:Mine")


def test_helpers_of_built_in_attacks_count_also_for_plugins_that_use_them(tmp_path: Path) -> None:
    built_in = registry("attacks").load("span")
    assert "qlorabench.attacks._subspace" in sources(
        {built_in.__module__: Path(sys.modules[built_in.__module__].__file__)}
    )
    (tmp_path / "mine.py").write_text("from qlorabench.attacks._subspace import Space\nclass Mine: ...\n")
    mine = registry("attacks", base=tmp_path, entry_points=[]).load("mine.py:Mine")
    found = sources({mine.__module__: tmp_path / "mine.py"})
    assert {"mine", "qlorabench.attacks._subspace"} <= set(found)
    assert not any(name.startswith("qlorabench.federation") for name in found), "the keys hash the harness as a whole"


def test_a_path_that_cannot_be_looked_up_is_told(tmp_path: Path) -> None:
    attacks = registry("attacks", base=tmp_path, entry_points=[])
    for name in ("x" * 5000 + ".py:Mine", "nul\0.py:Mine"):
        with pytest.raises(UserError):
            attacks.load(name)
