"""The matrix of a suite: which federations to train, which cells to run, and what does not fit, with reasons."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from qlorabench.errors import UserError
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.state import Layout
from qlorabench.suite.resolve import ResolvedAttack, ResolvedSuite, ResolvedSystem
from qlorabench.threats.attack import blindness
from qlorabench.threats.claims import Goal
from qlorabench.threats.models import ThreatModel

CellKind = Literal["utility", "bandwidth", "leakage"]


@dataclass(frozen=True)
class Cell:
    """One thing to measure: a system's utility or bandwidth, or one attack from one seat."""

    kind: CellKind
    task: str
    system: ResolvedSystem
    seed: int
    threat: ThreatModel | None = None
    attack: ResolvedAttack | None = None
    blind: str | None = None
    """Why the system leaves the attack no signal; such a cell is recorded as unsupported."""

    @property
    def label(self) -> str:
        """Path of the cell, which ``--only`` is matched against."""
        tail = f"/{self.threat.label}/{self.attack.label}" if self.threat and self.attack else f"/{self.kind}"
        return f"{self.task}/{self.system.name}/seed-{self.seed}{tail}"

    @property
    def coordinates(self) -> dict[str, Any]:
        """Where the cell stands, by the names that its rows have for it."""
        return {
            "task": self.task,
            "system": self.system.name,
            "seed": self.seed,
            "kind": self.kind,
            "threat": self.threat.label if self.threat else None,
            "attack": self.attack.label if self.attack else None,
            "goal": self.attack.cls.goal.value if self.attack else None,
        }

    def matches(self, pattern: str) -> bool:
        """Tell whether its path has a part that ``pattern`` matches, with ``*``, ``?`` and ``[...]`` as in a shell."""
        return bool(pattern) and (pattern in self.label or fnmatchcase(self.label, f"*{pattern}*"))


@dataclass(frozen=True)
class Plan:
    """Cells in the order in which they are run and recorded; a baseline's come before its twins'."""

    cells: tuple[Cell, ...]
    misfits: tuple[tuple[str, str, str], ...]
    """(threat, attack, reason) of pairs that no system can make fit."""

    @property
    def federations(self) -> list[tuple[str, ResolvedSystem, int]]:
        """(task, system, seed) of each federation to be trained, once each."""
        seen = {(c.task, c.system.name, c.seed): (c.task, c.system, c.seed) for c in self.cells}
        return list(seen.values())

    @property
    def added_twins(self) -> list[str]:
        """What is trained though the suite does not name it, a line for each such system of a task."""
        systems = {(task, system.name): system for task, system, _ in self.federations if system.control_of}
        return [
            f"{task}: '{name}' is added, plain LoRA on the training of {', '.join(system.control_of)}: their attacks' "
            "positive control"
            for (task, name), system in systems.items()
        ]


_COMPARED = 2000
"""Cells among which the ones near a pattern are looked for."""


def select(plan: Plan, pattern: str | None) -> list[Cell]:
    """Return the cells that ``--only`` asks for, all of them without a pattern; raises UserError where it is none."""
    found = [cell for cell in plan.cells if pattern is None or cell.matches(pattern)]
    if found or pattern is None:
        return found
    cells = plan.cells[:_COMPARED]
    labels = [cell.label for cell in cells]
    mended = _mended(pattern[:200], labels)
    near = [cell.label for cell in cells if cell.matches(mended)]
    hint = f" Did you mean '{mended}'?" if near else ""
    raise UserError(
        f"--only {pattern[:200]!r} matches none of the {len(plan.cells)} cells.{hint} A pattern is held against the "
        "path of a cell (task/system/seed-N/threat/attack, or .../utility, .../bandwidth) and every part of it; '*' "
        "stands for anything. Cells are, for instance:\n" + "\n".join(f"  {label}" for label in (near or labels)[:3])
    )


def _mended(pattern: str, labels: Iterable[str]) -> str:
    """Return ``pattern`` with the nearest part of a cell's path in place of each part that is none."""
    known = sorted({part for label in labels for part in label.split("/")})
    parts = []
    for part in pattern.split("/"):
        close = [] if "*" in part else difflib.get_close_matches(part, known, n=1, cutoff=0.5)
        parts.append(close[0] if close else part)
    return "/".join(parts)


def make_plan(suite: ResolvedSuite) -> Plan:
    """Return the matrix of ``suite``; nothing is trained or loaded for it."""
    cells = [
        cell
        for task in suite.systems
        for seed in suite.config.seeds
        for system in _baselines_first(suite.systems[task])
        for cell in _cells(suite, task, system, seed)
    ]
    misfits = [
        (threat.label, attack.label, reason)
        for threat in suite.threats
        for attack in suite.attacks
        if (reason := attack.misfit(threat))
    ]
    return Plan(tuple(cells), tuple(misfits))


def _baselines_first(systems: Mapping[str, ResolvedSystem]) -> list[ResolvedSystem]:
    return sorted(systems.values(), key=lambda system: bool(system.defenses))


def _cells(suite: ResolvedSuite, task: str, system: ResolvedSystem, seed: int) -> Iterator[Cell]:
    yield Cell("utility", task, system, seed)
    yield Cell("bandwidth", task, system, seed)
    facts = outline(system)
    for threat in suite.threats:
        for attack in suite.attacks:
            if attack.misfit(threat) is None:
                blind = blindness(attack.cls, attack.config, facts) or _no_game(suite, system, attack)
                yield Cell("leakage", task, system, seed, threat, attack, blind)


def _no_game(suite: ResolvedSuite, system: ResolvedSystem, attack: ResolvedAttack) -> str | None:
    """Return why too few texts can be asked about for a game of members and others, else ``None``.

    Its control splits the non-members in two, and there are as many of them as members.
    """
    if attack.cls.goal not in (Goal.MEMBERSHIP, Goal.VERIFICATION):
        return None
    insiders = max((threat.colluders for threat in suite.threats), default=0)
    members = sum(system.task.sizes[insiders:])
    if members >= 2:
        return None
    return f"needs two members to ask about; the clients that no seat of the suite holds have {members} row together"


def count_cells(suite: ResolvedSuite) -> int:
    """Return how many cells the plan of ``suite`` has, without making it."""
    pairs = sum(attack.misfit(threat) is None for threat in suite.threats for attack in suite.attacks)
    return sum(map(len, suite.systems.values())) * len(suite.config.seeds) * (2 + pairs)


def outline(system: ResolvedSystem) -> PublicFacts:
    """Return what is public of a system before it was trained: no layouts, no facts of its defenses."""
    task = system.task
    return PublicFacts(
        backbone=task.backbone.name,
        lora=task.lora,
        head=task.head,
        training=task.training,
        client_rows=tuple(task.examples),
        max_length=task.data.max_length,
        label_names=(),
        defenses=tuple(DefenseFacts(name, config) for name, config in system.defenses),
        full=Layout(()),
        travelling=Layout(()),
        objective=task.objective,
        canaries=task.canaries,
    )
