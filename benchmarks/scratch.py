"""A folder for the federations of a benchmark, of tens of gigabytes where adapters are of full rank."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a temporary folder that is gone after the block, also when the process is asked to end."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="qlorabench-") as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)
