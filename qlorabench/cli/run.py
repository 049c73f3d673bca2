"""``qlorabench run``: executes a plan and shows the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qlorabench.engines.folder import check_out
from qlorabench.engines.run import Run, default_workers
from qlorabench.engines.watch import LineWatch, RichWatch
from qlorabench.records.manifest import write_manifest
from qlorabench.suite.loading import find_suite, load_suite
from qlorabench.suite.plan import make_plan, select


def run_and_report(
    name: str,
    *,
    out: Path | None,
    only: str | None,
    workers: int | None,
    debug: bool = False,
    seeds: Sequence[int] | None = None,
) -> int:
    """Run a suite and print its leaderboard; return the exit code: 1 where a cell failed or timed out.

    ``seeds`` stand in place of the suite's own.
    """
    from rich.console import Console

    from qlorabench.cli.board import print_board

    path = find_suite(name)
    suite = load_suite(path)
    if seeds is not None:
        suite = suite.with_seeds(seeds)
    plan = make_plan(suite)
    select(plan, only)  # a pattern that matches nothing is told before anything is loaded
    folder = out or Path("runs") / suite.config.name
    check_out(folder)
    console = Console(highlight=False)
    with RichWatch(console) if console.is_terminal else LineWatch(console) as watch:
        watch.say(f"{suite.config.name}: {path} -> {folder}")
        run = Run(suite, plan, folder, workers or default_workers(), watch, only, debug)
        run.execute(before=lambda r: write_manifest(folder, suite=path, seeds=suite.config.seeds, run_facts=r.facts))
    print_board([folder], format="table", details=False)
    if run.failures:
        watch.say(f"{run.failures} cells failed or timed out; the same command tries them again")
    return 1 if run.failures else 0
