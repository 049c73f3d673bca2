"""``qlorabench check``: the plan of a suite, as it would be run."""

from __future__ import annotations

from collections import Counter

from qlorabench.suite.loading import find_suite, load_suite
from qlorabench.suite.plan import Plan, make_plan
from qlorabench.suite.resolve import ResolvedSuite

_LABEL = 20
"""Columns that an attack's label gets before it is folded."""


def print_plan(name: str) -> None:
    """Print federations, cells and misfits of a suite; raises SuiteError where it has problems."""
    from rich.console import Console

    path = find_suite(name)
    suite = load_suite(path)
    plan = make_plan(suite)
    console = Console(highlight=False)
    console.print(f"{path}: no problems\n")
    _print_federations(console, suite, plan)
    _print_matrix(console, suite, plan)
    for line in plan.added_twins:
        console.print(line, markup=False)
    for cell in plan.cells:
        if cell.blind:
            console.print(f"no signal     {cell.label}: {cell.blind}")


def _print_federations(console: object, suite: ResolvedSuite, plan: Plan) -> None:
    from rich.table import Table

    table = Table(
        "task",
        "system",
        "seed",
        "defenses",
        "trains",
        title=f"{len(plan.federations)} federations to train",
        title_justify="left",
    )
    for task, system, seed in plan.federations:
        training = system.task.training
        draws = sum(max(1, min(training.batch_size, n // 4)) for n in system.task.examples)
        amount = f"{training.rounds * training.local_steps * draws:,} examples"
        table.add_row(task, system.name, str(seed), ", ".join(n for n, _ in system.defenses) or "none", amount)
    console.print(table)  # type: ignore[attr-defined]


def _print_matrix(console: object, suite: ResolvedSuite, plan: Plan) -> None:
    from rich.table import Column, Table

    counts = Counter((c.threat.label, c.attack.label) for c in plan.cells if c.threat and c.attack)
    reasons = {(threat, attack): reason for threat, attack, reason in plan.misfits}
    first = Column(
        "attack", overflow="fold", min_width=min(_LABEL, max((len(a.label) for a in suite.attacks), default=0))
    )
    table = Table(first, *(t.label for t in suite.threats), title=f"{len(plan.cells)} cells", title_justify="left")
    for attack in suite.attacks:
        pairs = [(threat.label, attack.label) for threat in suite.threats]
        table.add_row(attack.label, *(reasons.get(pair) or f"{counts[pair]} cells" for pair in pairs))
    console.print(table)  # type: ignore[attr-defined]
