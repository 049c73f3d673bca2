"""From the names in a suite to plug-ins: every reference is looked up, and what does not go together is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError
from qlorabench.federation.defense import Defense, defense_problems
from qlorabench.hashing import canonical
from qlorabench.plugins import Group, plugin_version, registry
from qlorabench.suite.parts import Parts
from qlorabench.suite.references import split_reference
from qlorabench.suite.resolve import ResolvedAttack, ResolvedSystem
from qlorabench.suite.schema import SystemConfig, TaskConfig
from qlorabench.suite.twins import with_twins
from qlorabench.suite.validation import Checker
from qlorabench.suite.yaml_marks import Place
from qlorabench.tasks.sources import Source
from qlorabench.threats.attack import Attack, attack_problems
from qlorabench.threats.models import ThreatModel, ThreatSpec

BASES: Mapping[Group, type] = {"attacks": Attack, "defenses": Defense, "tasks": Source}
"""What a plug-in of each group derives from."""
_PROBLEMS: Mapping[Group, Callable[[type], list[str]]] = {
    "attacks": attack_problems,
    "defenses": defense_problems,
    "tasks": lambda _: [],
}
"""What is wrong with the class of a plug-in, by its group."""
Entry = tuple[str, type[Any], dict[str, Any]]
"""A plug-in as it was asked for: name, class, full config."""


class Resolver:
    """Looks up what the parts of one suite name; what is wrong goes to the checker."""

    def __init__(self, checker: Checker, parts: Parts, base: Path) -> None:
        self._checker, self._parts, self._base = checker, parts, base
        self._versions: dict[tuple[Group, str], str] = {}

    def attacks(self) -> tuple[ResolvedAttack, ...]:
        """Return the attacks, each under a label of its own."""
        resolved: list[ResolvedAttack] = []
        counts: dict[str, int] = {}
        first: dict[tuple[type[Any], str], int] = {}
        for i, entry in enumerate(self._references("attacks", self._parts.attacks, ("attacks",))):
            if entry is None:
                continue
            name, cls, config = entry
            before = first.setdefault((cls, canonical(config)), i)
            if before != i:
                self._checker.report(("attacks", i), f"'{name}' stands at attacks[{before}] with the same options")
                continue
            counts[name] = counts.get(name, 0) + 1
            label = name if counts[name] == 1 else f"{name}#{counts[name]}"
            resolved.append(ResolvedAttack(label, name, cls, config, self._version("attacks", name, cls)))
        return tuple(resolved)

    def threats(self) -> tuple[ThreatModel, ...]:
        """Return the threat models, each seat once."""
        found: list[ThreatModel] = []
        first: dict[tuple[frozenset[Any], int], tuple[str, int]] = {}
        for i, reference in enumerate(self._parts.threats):
            threat = self._threat(reference, ("threats", i))
            if threat is None:
                continue
            label, before = first.setdefault((threat.grants, threat.colluders), (threat.label, i))
            if before == i:
                found.append(threat)
            else:
                self._checker.report(("threats", i), f"the seat stands at threats[{before}] already, as '{label}'")
        return tuple(found)

    def systems(self) -> dict[str, Mapping[str, ResolvedSystem]]:
        """Return the systems of each task whose source is known, by task and name."""
        for name, source in self._parts.sources.items():
            if source is not None and name not in self._parts.tasks:
                self._source(name, source)
        for name, defenses in self._parts.defenses.items():
            if name not in self._parts.systems:
                self._references("defenses", defenses, ("systems", name, "defenses"))
        tasks = {name: task for name, task in self._parts.tasks.items() if self._source(name, task.data.source, task)}
        resolved: dict[str, Mapping[str, ResolvedSystem]] = {}
        for name, task in tasks.items():
            systems = {key: self._system(task, key, system) for key, system in self._parts.systems.items()}
            resolved[name] = with_twins({key: system for key, system in systems.items() if system})
        return resolved

    def _references(self, group: Group, found: Sequence[Any], place: Place) -> list[Entry | None]:
        return [self._reference(group, reference, (*place, i)) for i, reference in enumerate(found)]

    def _reference(self, group: Group, reference: Any, place: Place) -> Entry | None:
        try:
            name, options = split_reference(reference)
            cls = registry(group, base=self._base).load(name)
            if not issubclass(cls, BASES[group]):
                raise UserError(f"{group[:-1]} '{name}' is no {BASES[group].__name__}")
            if wrong := _PROBLEMS[group](cls):
                raise UserError(f"{group[:-1]} '{name}' is not whole: {'; '.join(wrong)}")
        except (UserError, ValueError, TypeError, AttributeError) as error:
            self._checker.report(place, str(error))
            return None
        inside = place if isinstance(reference, str) else (*place, name)
        config: Any = cls if group == "tasks" else cls.Config  # type: ignore[attr-defined]
        try:
            model = self._checker.validate(config, options, prefix=inside)
            if model is None:
                return None
            full = model.model_dump(mode="json")
            canonical(full)  # keys are made of it: JSON types and finite numbers alone
        except Exception as error:  # noqa: BLE001 - the code of a plug-in
            self._checker.report(inside, f"the config of '{name}' fails: {type(error).__name__}: {error}")
            return None
        return name, cls, full

    def _version(self, group: Group, name: str, cls: type[Any]) -> str:
        if (group, name) not in self._versions:
            origin = registry(group, base=self._base).origin(name)
            self._versions[group, name] = plugin_version(cls, origin=origin)
        return self._versions[group, name]

    def _threat(self, reference: Any, place: Place) -> ThreatModel | None:
        try:
            name, options = split_reference(reference)
            allowed = {"k"} if name == "colluding-clients" else set()
            if wrong := sorted(set(options) - allowed):
                said = ", ".join(sorted(allowed)) or "none"
                raise UserError(f"unknown option '{wrong[0]}' of threat model '{name}'. Allowed: {said}")
            k = options.get("k", 2)
            if type(k) is not int or not 1 <= k <= 10_000:
                raise UserError(f"k must be a whole number from 1 to 10000, found {k!r:.60}")
            return self._seated(ThreatSpec(name, k).resolve())
        except (UserError, ValueError, TypeError, AttributeError) as error:
            self._checker.report(place, str(error))
            return None

    def _seated(self, threat: ThreatModel) -> ThreatModel:
        for name, task in self._parts.tasks.items():
            if threat.colluders >= task.clients and not self._checker.wrong_at(("tasks", name, "clients")):
                raise UserError(
                    f"'{threat.label}' seats the adversary at {threat.colluders} of the {task.clients} clients of task "
                    f"'{name}'; at least one must be left to attack"
                )
        return threat

    def _source(self, name: str, reference: Any, task: TaskConfig | None = None) -> bool:
        """Tell whether the data source of a task is known; without ``task`` its objective is not."""
        place = ("tasks", name, "data", "source")
        found = self._reference("tasks", reference, place)
        if found is None:
            return False
        source, cls, options = found
        if task and task.objective == "classification" and not cls(**options).labelled:
            self._checker.report((*place, source, "label"), "missing; a classification needs the column of the labels")
            return False
        return True

    def _system(self, task: TaskConfig, name: str, system: SystemConfig) -> ResolvedSystem | None:
        place = ("systems", name)
        merged = _merge(task.model_dump(mode="json"), system.override)
        config = self._checker.validate(TaskConfig, merged, prefix=(*place, "override"))
        found = self._references("defenses", system.defenses, (*place, "defenses"))
        entries = [entry for entry in found if entry]
        if config is None or len(entries) < len(found):
            return None
        self._conflicts(entries, config, place)
        versions = tuple(self._version("defenses", n, cls) for n, cls, _ in entries)
        defenses = tuple((n, options) for n, _, options in entries)
        return ResolvedSystem(name, config, defenses, versions, twin="")

    def _conflicts(self, entries: Sequence[Entry], task: TaskConfig, place: Place) -> None:
        defenses: list[Defense[Any]] = []
        taken: dict[str, str] = {}
        try:
            defenses = [cls(cls.Config.model_validate(options)) for _, cls, options in entries]
            for i, defense in enumerate(defenses):
                others = [d for d in defenses if d is not defense]
                reason = defense.conflict(others, optimizer=task.training.optimizer.kind)
                for slot in sorted(defense.exclusive):
                    if slot in taken:
                        reason = f"{defense.name} cannot stand with {taken[slot]}: both set the {slot}"
                    taken[slot] = defense.name
                if defense.name in [d.name for d in defenses[:i]]:
                    reason = f"{defense.name} is listed twice"
                if reason:
                    self._checker.report((*place, "defenses", i), reason)
        except Exception as error:  # noqa: BLE001 - the code of a plug-in
            self._checker.report((*place, "defenses"), f"a defense fails: {type(error).__name__}: {error}")


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``left`` with the keys of ``right`` over it, mappings merged."""
    merged = dict(left)
    for key, value in right.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
