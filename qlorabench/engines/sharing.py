"""Shared memory for the frozen backbone, which all workers read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError

SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory; a container's is small unless it is asked for more."""
SPARE = 1 << 20
"""Bytes that what workers send back may take beside the backbone."""


def share(model: Any) -> None:
    """Move every tensor of ``model`` into shared memory; raises UserError where there is too little of it."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    needed = SPARE + sum(storage.nbytes() for storage in storages.values() if not storage.is_shared())
    free = _free()
    if free is not None and free < needed:
        raise _too_little(f"{_megabytes(needed)} are needed and {_megabytes(free)} are free")
    try:
        model.share_memory()
    except (OSError, RuntimeError) as error:
        raise _too_little(f"{_megabytes(needed)} are needed; {str(error).splitlines()[0]}") from error


def _too_little(why: str) -> UserError:
    return UserError(
        f"too little shared memory for the backbone, which all workers read from {SHARED}: {why}. In a container give "
        "it more ('docker run --shm-size=2g', or a memory volume at /dev/shm), else enlarge or empty it."
    )


def _free() -> int | None:
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
