"""Twins: for every defended system the same training without its defenses, the positive control of attacks on it.

An attack that reads nothing of a defended system says something of the defenses only where it reads its twin. A twin on
another schedule (fewer steps, larger batches, another rate) would mix what the defenses do with what the schedule does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qlorabench.suite.resolve import ResolvedSystem
from qlorabench.suite.schema import TaskConfig


def with_twins(systems: Mapping[str, ResolvedSystem]) -> dict[str, ResolvedSystem]:
    """Return the systems of one task with their twins named, and the twins that the suite lacks added behind them.

    The twin of a defended system is the first undefended one with the same task in every setting. Where there is none,
    one is added as ``twin-of-<system>``; systems with the same task share it.
    """
    undefended = [system for system in systems.values() if not system.defenses]
    twins: list[ResolvedSystem] = []
    named: dict[str, ResolvedSystem] = {}
    for name, system in systems.items():
        if not system.defenses:
            named[name] = replace(system, twin=name)
            continue
        twin = _on_the_same_training(system.task, [*undefended, *twins])
        if twin is None:
            taken = {*systems, *(t.name for t in twins)}
            twin = ResolvedSystem(_free_name(f"twin-of-{name}", taken), system.task, (), (), twin="")
            twins.append(twin)
        named[name] = replace(system, twin=twin.name)
    for twin in twins:
        controlled = tuple(name for name, system in named.items() if system.twin == twin.name)
        named[twin.name] = replace(twin, twin=twin.name, control_of=controlled)
    return named


def _on_the_same_training(task: TaskConfig, undefended: list[ResolvedSystem]) -> ResolvedSystem | None:
    return next((system for system in undefended if system.task == task), None)


def _free_name(name: str, taken: set[str]) -> str:
    """Return ``name``, with a number behind it where the suite has given it to a system of its own."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
