"""The matrix of a suite: which federations to train, which cells to run, and what does not fit, with reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.state import Layout
from qlorabench.suite.resolve import ResolvedAttack, ResolvedSuite, ResolvedSystem
from qlorabench.threats.attack import blindness
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

    def twin(self, cell: Cell) -> Cell:
        """Return the same cell of the undefended twin, which is its positive control."""
        return next(
            c
            for c in self.cells
            if (c.task, c.seed, c.kind, c.threat, c.attack)
            == (cell.task, cell.seed, cell.kind, cell.threat, cell.attack)
            and c.system.name == cell.system.twin
        )


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
                yield Cell("leakage", task, system, seed, threat, attack, blindness(attack.cls, attack.config, facts))


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
