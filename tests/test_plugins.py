import hashlib
import re
import sys
from importlib import metadata

import pytest

from qlorabench.errors import UserError
from qlorabench.plugins import Origin, plugin_version, registry

SOURCE = """\
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Mine:
    version: ClassVar[str] = "3"
    rank: int = 1

not_a_class = 7
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that lays out a distribution with one attack, and gives its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(dist, *, name, value, module=None, source=SOURCE):
        info = tmp_path / f"{dist}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[qlorabench.attacks]\n{name} = {value}\n")
        if module:
            (tmp_path / f"{module}.py").write_text(source)
        return list(metadata.PathDistribution(info).entry_points)

    return install


def refused(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    return str(caught.value)


def test_names_are_sorted_and_nothing_is_imported(install):
    entries = install("zeta", name="span", value="absent_one:A") + install("alpha", name="ace", value="absent_two:B")
    attacks = registry("attacks", entry_points=entries)
    assert attacks.names() == ["ace", "span"]
    assert str(attacks.origin("span")) == "zeta 1.2 (absent_one)"


def test_load(install):
    attacks = registry("attacks", entry_points=install("d", name="mine", value="pm_load:Mine", module="pm_load"))
    assert attacks.origin("mine") == Origin("pm_load", "d", "1.2")
    assert "pm_load" not in sys.modules
    assert attacks.load("mine") is sys.modules["pm_load"].Mine


def test_unknown_name(install):
    attacks = registry("attacks", entry_points=install("d", name="span", value="m:A"))
    expected = "unknown attack 'spam'. Did you mean 'span'? Known: span"
    assert refused(attacks.load, "spam") == expected
    assert refused(attacks.origin, "spam") == expected
    assert refused(registry("defenses", entry_points=[]).load, "x") == "unknown defense 'x'. Known: none"
    assert refused(registry("tasks", entry_points=[]).load, "x") == "unknown task 'x'. Known: none"


def test_a_name_registered_twice(install):
    entries = install("one", name="span", value="m:A") + install("two", name="span", value="n:B")
    attacks = registry("attacks", entry_points=entries)
    assert attacks.names() == ["span"]
    assert refused(attacks.load, "span") == (
        "attack 'span' is registered by one 1.2 (m) and two 1.2 (n); uninstall one of them"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package_here", "ModuleNotFoundError: No module named 'no_such_package_here'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("Other = 1", "has no attribute 'Mine'"),
    ],
)
def test_import_that_fails_names_distribution_and_reason(install, source, reason):
    module = f"pm_bad_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    entries = install("broken", name="mine", value=f"{module}:Mine", module=module, source=source)
    message = refused(registry("attacks", entry_points=entries).load, "mine")
    assert message.startswith(f"attack 'mine' of broken 1.2 ({module}) cannot be imported: ")
    assert reason in message


def test_entry_that_is_no_class(install):
    entries = install("d", name="mine", value="pm_int:not_a_class", module="pm_int")
    message = refused(registry("attacks", entry_points=entries).load, "mine")
    assert message == "attack 'mine' of d 1.2 (pm_int): not a class"


def test_entry_point_without_distribution():
    entry = metadata.EntryPoint(name="x", value="pathlib:Path", group="qlorabench.attacks")
    attacks = registry("attacks", entry_points=[entry])
    assert str(attacks.origin("x")) == "pathlib"
    assert attacks.load("x").__name__ == "Path"


def test_class_of_a_file_is_relative_to_base_and_cached(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text(SOURCE)
    attacks = registry("attacks", base=tmp_path, entry_points=[])
    found = attacks.load("sub/mine.py:Mine")
    assert found(rank=2).rank == 2
    assert found is attacks.load("./sub/mine.py:Mine")
    assert found is registry("attacks", base=tmp_path / "sub", entry_points=[]).load("mine.py:Mine")
    assert found is attacks.load(f"{tmp_path}/sub/mine.py:Mine")
    assert attacks.origin("sub/mine.py:Mine") == Origin(str((tmp_path / "sub" / "mine.py").resolve()))


def test_files_that_cannot_be_used(tmp_path):
    attacks = registry("attacks", base=tmp_path, entry_points=[])
    (tmp_path / "bad.py").write_text("import no_such_package_here")
    (tmp_path / "mine.py").write_text(SOURCE)
    assert refused(attacks.load, "gone.py:A") == f"plug-in file not found: {(tmp_path / 'gone.py').resolve()}"
    assert refused(attacks.load, "bad.py:A").endswith(
        "bad.py cannot be imported: ModuleNotFoundError: No module named 'no_such_package_here'"
    )
    assert refused(attacks.load, "mine.py:A") == "attack 'mine.py:A': the file has no such class"
    assert refused(attacks.load, "mine.py:not_a_class") == "attack 'mine.py:not_a_class': not a class"


def test_a_file_can_be_mended_after_a_failed_import(tmp_path):
    attacks = registry("attacks", base=tmp_path, entry_points=[])
    (tmp_path / "mine.py").write_text("1 / 0")
    refused(attacks.load, "mine.py:Mine")
    (tmp_path / "mine.py").write_text(SOURCE)
    assert attacks.load("mine.py:Mine").__name__ == "Mine"


def test_version_changes_with_the_code(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    attacks = registry("attacks", base=tmp_path, entry_points=[])
    found = attacks.load("mine.py:Mine")
    before = plugin_version(found, origin=attacks.origin("mine.py:Mine"))
    assert re.fullmatch("file-0/3/[0-9a-f]{12}", before)
    path.write_text(SOURCE + "# changed\n")
    assert plugin_version(found, origin=attacks.origin("mine.py:Mine")) != before


def test_version_changes_with_the_modules_that_are_imported_and_no_others(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE + "\n\ndef late():\n    from ._shared import x\n")
    (tmp_path / "_shared.py").write_text("from . import _deep\nfrom .mine import late\n")
    (tmp_path / "_deep.py").write_text("")
    found = registry("attacks", base=tmp_path, entry_points=[]).load("mine.py:Mine")
    origin = Origin("m", "d", "1.2")
    before = plugin_version(found, origin=origin)
    (tmp_path / "_unused.py").write_text("")
    assert plugin_version(found, origin=origin) == before
    (tmp_path / "_deep.py").write_text("y = 1")
    assert plugin_version(found, origin=origin) != before


def test_version_of_a_distribution():
    assert plugin_version(UserError, origin=Origin("m", "d", "1.2")).startswith("d-1.2/0/")


def test_version_without_a_source_file():
    assert "has no source file to hash" in refused(lambda: plugin_version(int, origin=Origin("builtins")))


def test_installed_plugins_are_read():
    assert registry("attacks").names() == sorted(
        {entry.name for entry in metadata.entry_points(group="qlorabench.attacks")}
    )
