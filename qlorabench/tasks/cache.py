"""The user's cache: folders that appear whole, with the SHA-256 of every file in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps, loads
from pathlib import Path

from qlorabench.errors import UserError
from qlorabench.hashing import file_sha256

_MANIFEST = "manifest.json"


def cache_root() -> Path:
    """Return the cache folder: ``QLORABENCH_CACHE``, else ``qlorabench`` in the user's cache folder."""
    if own := os.environ.get("QLORABENCH_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "qlorabench"


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Give a private folder on the cache's own disk, and remove it with all that is left in it."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent) as work:
            yield Path(work)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {parent}: {error.strerror or error}. "
            "Free some space there, or set QLORABENCH_CACHE to a folder that can be written."
        ) from error


def record(folder: Path, files: Mapping[str, str]) -> None:
    """Write which files ``folder`` holds (path in it to SHA-256); done last, it makes the folder whole."""
    (folder / _MANIFEST).write_text(dumps({"files": dict(files)}, indent=1), "utf-8")


def is_whole(folder: Path, *, pinned: Sequence[tuple[str, str]] = ()) -> bool:
    """Whether every recorded file still has its hash, and the ``pinned`` pairs (path, SHA-256) are among them."""
    try:
        files: dict[str, str] = loads((folder / _MANIFEST).read_text("utf-8"))["files"]
        pinned_hold = all(files.get(name) == sha256 for name, sha256 in pinned)
        return bool(files) and pinned_hold and all(file_sha256(folder / name) == files[name] for name in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def publish(files: Path, folder: Path, *, pinned: Sequence[tuple[str, str]] = ()) -> None:
    """Move the finished ``files`` to ``folder``; a whole one that came first is kept, a damaged one replaced."""
    try:
        files.rename(folder)
    except OSError:
        if is_whole(folder, pinned=pinned):
            return
        if folder.exists():
            folder.rename(files.with_name("damaged"))
        files.rename(folder)
