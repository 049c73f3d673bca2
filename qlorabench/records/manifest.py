"""What a run was made with: versions, revision, content hashes, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from qlorabench import __version__
from qlorabench.files import write_json
from qlorabench.hashing import file_sha256

PACKAGES = ("torch", "transformers", "peft", "opacus", "bitsandbytes", "safetensors", "numpy", "scipy", "tokenizers")


def write_manifest(out: Path, *, suite: Path, seeds: Sequence[int], run_facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write manifest.json beside the journal, and a copy of the suite."""
    text = suite.read_text("utf-8")
    (out / "suite.yaml").write_text(text, "utf-8")
    write_json(
        out / "manifest.json",
        {
            "qlorabench": __version__,
            "git": _git(Path(__file__).parent),
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "suite_sha256": file_sha256(suite),
            "seeds": list(seeds),
            "tasks": {name: dict(facts) for name, facts in run_facts.items()},
            "hardware": _hardware(),
        },
    )


def _git(folder: Path) -> dict[str, Any] | None:
    """Return revision and cleanliness of the checkout that qlorabench runs from; ``None`` outside of one."""
    said = [
        subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    if said[0].returncode:
        return None
    return {"revision": said[0].stdout.strip(), "dirty": bool(said[1].stdout.strip())}


def _hardware() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "processors": os.cpu_count(), "cpu": _cpu()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
