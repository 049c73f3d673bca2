"""Renews results/: runs every suite that has reference results, and keeps the latest rows, manifest and leaderboard.

python -m benchmarks.results [SUITE ...]
"""

from __future__ import annotations

import shutil
import sys
from itertools import groupby
from pathlib import Path

from qlorabench.cli.run import run_and_report
from qlorabench.records.journal import Journal
from qlorabench.records.leaderboard import board_of
from qlorabench.records.results import read_results
from qlorabench.report import render

ROOT = Path(__file__).resolve().parent.parent
SEEDS = {"quickstart": (0, 1, 2)}
"""Seeds in place of those of the suite as it ships, where a headline rests on them."""
KEPT = ("manifest.json", "suite.yaml", "plan.json")


def renew(name: str) -> int:
    """Run one suite and copy what is kept of it; return the exit code of the run."""
    out = ROOT / "runs" / name
    code = run_and_report(name, out=out, only=None, workers=None, seeds=SEEDS.get(name))
    target = ROOT / "results" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copyfile(out / file, target / file)
    records = [record for part in read_results(out) for record in part.records]
    (target / "records.jsonl").unlink(missing_ok=True)
    for _, block in groupby(records, key=lambda record: record.key):
        Journal(target / "records.jsonl").append(list(block))
    board = render(board_of(read_results(target)), "markdown")
    (target / "leaderboard.md").write_text(board, "utf-8")
    return code


def main() -> None:
    """Renew the named suites, or all that ship but the toy."""
    shipped = sorted(p.stem for p in (ROOT / "suites").glob("*.yaml") if p.stem != "toy")
    sys.exit(max(renew(name) for name in sys.argv[1:] or shipped))


if __name__ == "__main__":
    main()
