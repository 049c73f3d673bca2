"""``qlorabench check``: every problem of a suite at once, else its plan as it would be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlorabench.errors import UserError
from qlorabench.plugins import plugin_file
from qlorabench.suite.loading import Examined, examine, find_suite
from qlorabench.suite.parts import Parts
from qlorabench.suite.plan import Plan, make_plan
from qlorabench.suite.references import split_reference
from qlorabench.suite.resolve import ResolvedSuite
from qlorabench.terminal import plain_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 112
"""Columns that the output takes at most."""
_LABEL = 20
"""Columns that an attack's label gets before it is folded."""
_SEEDS = 5
"""As many seeds are named one by one."""


def print_plan(name: str, *, offline: bool = False) -> None:
    """Print federations, cells and misfits of a suite; raises SuiteError where it has problems.

    The files of plug-ins are run for it. Data and the configurations of backbones are opened unless ``offline``.
    """
    from rich.console import Console

    from qlorabench.cli.opening import open_all

    examined = examine(find_suite(name))
    seen = [] if offline else open_all(examined)
    plan = _plan(examined)
    suite = examined.finish()
    assert plan is not None
    console = Console(highlight=False)
    _say(console, f"{examined.file}: no problems")
    for line in [*seen, *_files(examined)]:
        _say(console, line)
    _say(console, "")
    _print_federations(console, plan)
    _print_matrix(console, suite, plan)
    for line in [*plan.added_twins, *_blind(plan)]:
        _say(console, line)


def _plan(examined: Examined) -> Plan | None:
    """Return the plan of a suite without problems; an attack that fails when it is asked of a system is one more."""
    if examined.suite and not examined.checker.problems:
        try:
            return make_plan(examined.suite)
        except UserError as error:
            examined.checker.report(("attacks",), str(error))
    return None


def _files(examined: Examined) -> list[str]:
    """Return a line for each plug-in file that was run, and whether it lies outside of the suite's folder."""
    base = examined.file.parent
    lines = []
    for path in dict.fromkeys(_plugin_files(examined.parts, base)):
        outside = "" if path.is_relative_to(base.resolve()) else ", outside of the suite's folder"
        lines.append(f"code that was run: {path}{outside}")
    return lines


def _plugin_files(parts: Parts, base: Path) -> Iterable[Path]:
    defenses = [reference for found in parts.defenses.values() for reference in found]
    for reference in [*parts.sources.values(), *defenses, *parts.attacks]:
        if file := plugin_file(split_reference(reference)[0], base=base):
            yield file


def _blind(plan: Plan) -> list[str]:
    """Return why attacks have no signal, once for all seeds."""
    cells = [cell for cell in plan.cells if cell.blind]
    labels = {cell.label.replace(f"/seed-{cell.seed}/", "/", 1): cell.blind for cell in cells}
    return [f"no signal     {label}: {why}" for label, why in labels.items()]


def _print_federations(console: Console, plan: Plan) -> None:
    seeds: dict[tuple[str, str], list[int]] = {}
    systems = {}
    for task, system, seed in plan.federations:
        seeds.setdefault((task, system.name), []).append(seed)
        systems[task, system.name] = system
    table = _table(
        "task", "system", "seeds", "defenses", "trains", title=f"{len(plan.federations)} federations to train"
    )
    for (task, name), system in systems.items():
        training = system.task.training
        draws = sum(max(1, min(training.batch_size, n // 4)) for n in system.task.examples)
        amount = f"{training.rounds * training.local_steps * draws:,} examples"
        own = seeds[task, name]
        listed = ", ".join(map(str, own)) if len(own) <= _SEEDS else f"{len(own)} of them"
        _add(table, task, name, listed, ", ".join(n for n, _ in system.defenses) or "none", amount)
    console.print(table, width=min(console.width, WIDTH))


def _print_matrix(console: Console, suite: ResolvedSuite, plan: Plan) -> None:
    counts = Counter((c.threat.label, c.attack.label) for c in plan.cells if c.threat and c.attack)
    reasons = {(threat, attack): reason for threat, attack, reason in plan.misfits}
    table = _table("attack", *(t.label for t in suite.threats), title=f"{len(plan.cells)} cells")
    table.columns[0].min_width = min(_LABEL, max((len(a.label) for a in suite.attacks), default=0))
    for attack in suite.attacks:
        pairs = [(threat.label, attack.label) for threat in suite.threats]
        _add(table, attack.label, *(reasons.get(pair) or f"{counts[pair]} cells" for pair in pairs))
    console.print(table, width=min(console.width, WIDTH))


def _table(*headings: str, title: str) -> Table:
    from rich.table import Column, Table

    columns = [Column(_text(heading), overflow="fold") for heading in headings]
    return Table(*columns, title=title, title_justify="left")


def _add(table: Table, *places: str) -> None:
    table.add_row(*map(_text, places))


def _say(console: Console, line: str) -> None:
    console.print(_text(line), width=min(console.width, WIDTH), overflow="fold")


def _text(line: str) -> Any:
    """Return text as it is: names and paths are never markup, and drive no terminal."""
    from rich.text import Text

    return Text(plain_line(line))
