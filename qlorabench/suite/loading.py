"""Reads a suite file, finds every problem in it at once, and resolves what it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from qlorabench.errors import UserError, nearest, told
from qlorabench.federation.defense import Defense, defense_problems
from qlorabench.plugins import Group, plugin_version, registry
from qlorabench.suite.references import split_reference
from qlorabench.suite.resolve import ResolvedAttack, ResolvedSuite, ResolvedSystem
from qlorabench.suite.schema import SuiteConfig, SystemConfig, TaskConfig
from qlorabench.suite.validation import Checker
from qlorabench.suite.yaml_marks import Place, load_marked
from qlorabench.threats.attack import Attack, attack_problems
from qlorabench.threats.models import ThreatModel, ThreatSpec, presets

SHIPPED = "qlorabench.suites"
_PROBLEMS: Mapping[Group, Callable[[type], list[str]]] = {
    "attacks": attack_problems,
    "defenses": defense_problems,
    "tasks": lambda _: [],
}
"""What is wrong with the class of a plug-in, by its group."""


def find_suite(name: str) -> Path:
    """Return the file of a suite given as a path or by the name of one that ships; raises UserError."""
    from importlib.resources import files

    path = Path(name)
    if path.is_file():
        return path
    stem = path.name.removesuffix(".yaml")
    shipped = sorted(str(f.name) for f in files(SHIPPED).iterdir() if str(f.name).endswith(".yaml"))
    if f"{stem}.yaml" in shipped and path.parent in (Path(), Path("suites")):
        return Path(str(files(SHIPPED) / f"{stem}.yaml"))
    known = ", ".join(s.removesuffix(".yaml") for s in shipped)
    raise UserError(f"no suite '{name}': it is neither a file nor one that ships ({known}).{nearest(stem, shipped)}")


def load_suite(path: Path) -> ResolvedSuite:
    """Return the resolved suite in ``path``; raises SuiteError with every problem at once."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite {path} cannot be read: {error}") from error
    marks = load_marked(text, file=str(path))
    checker = Checker(marks)
    config = checker.validate(SuiteConfig, marks.data)
    if config is None:
        _check_references(checker, marks.data, base=path.parent)
        checker.finish(file=str(path))
        raise AssertionError("a suite that does not validate has problems")
    suite = _Resolver(checker, config, path.parent).resolve()
    checker.finish(file=str(path))
    return suite


def _check_references(checker: Checker, data: Any, *, base: Path) -> None:
    """Check the plug-ins of a suite whose shape is wrong elsewhere, so that their problems are told too."""
    resolver = _Resolver(checker, None, base)
    rows = [(("attacks",), data.get("attacks"))] if isinstance(data, dict) else []
    systems = data.get("systems") if isinstance(data, dict) else None
    if isinstance(systems, dict):
        for name, system in systems.items():
            if isinstance(system, dict) and isinstance(system.get("defenses"), list):
                resolver.references("defenses", system["defenses"], ("systems", str(name), "defenses"))
    for place, found in rows:
        if isinstance(found, list):
            resolver.references("attacks", found, place)


class _Resolver:
    def __init__(self, checker: Checker, config: SuiteConfig | None, base: Path) -> None:
        self._checker, self._config, self._base = checker, config, base

    def resolve(self) -> ResolvedSuite:
        assert self._config is not None
        config = self._config
        attacks = self._attacks(config.attacks)
        threats = tuple(t for i, r in enumerate(config.threats) if (t := self._threat(r, ("threats", i))))
        tasks = {name: task for name, task in config.tasks.items() if self._source(name, task)}
        systems = {task: self._systems(task) for task in tasks}
        return ResolvedSuite(config, self._base, systems, threats, attacks)

    def references(
        self, group: Group, found: Sequence[Any], place: Place
    ) -> list[tuple[str, type[Any], dict[str, Any]] | None]:
        return [self._reference(group, reference, (*place, i)) for i, reference in enumerate(found)]

    def _reference(self, group: Group, reference: Any, place: Place) -> tuple[str, type[Any], dict[str, Any]] | None:
        base = {"defenses": Defense, "attacks": Attack, "tasks": BaseModel}[group]
        try:
            name, options = split_reference(reference)
            cls = registry(group, base=self._base).load(name)
            if not issubclass(cls, base):
                raise UserError(f"{group[:-1]} '{name}' is no {base.__name__}")
            if wrong := _PROBLEMS[group](cls):
                raise UserError(f"{group[:-1]} '{name}' is not whole: {'; '.join(wrong)}")
        except (UserError, ValueError, TypeError, AttributeError) as error:
            self._checker.report(place, str(error))
            return None
        inside = place if isinstance(reference, str) else (*place, name)
        model = self._checker.validate(cls if group == "tasks" else cls.Config, options, prefix=inside)  # type: ignore[attr-defined]
        return None if model is None else (name, cls, model.model_dump(mode="json"))

    def _attacks(self, found: Sequence[Any]) -> tuple[ResolvedAttack, ...]:
        resolved, counts = [], dict[str, int]()
        for entry in self.references("attacks", found, ("attacks",)):
            if entry:
                name, cls, config = entry
                counts[name] = counts.get(name, 0) + 1
                label = name if counts[name] == 1 else f"{name}#{counts[name]}"
                version = plugin_version(cls, origin=registry("attacks", base=self._base).origin(name))
                resolved.append(ResolvedAttack(label, name, cls, config, version))
        return tuple(resolved)

    def _threat(self, reference: Any, place: Place) -> ThreatModel | None:
        try:
            name, options = split_reference(reference)
            allowed = {"k"} if name == "colluding-clients" else set()
            if wrong := sorted(set(options) - allowed):
                said = ", ".join(sorted(allowed)) or "none"
                raise UserError(f"unknown option '{wrong[0]}' of threat model '{name}'. Allowed: {said}")
            k = options.get("k", 2)
            if not isinstance(k, int) or k < 1:
                raise UserError(f"k must be a whole number of at least 1, found {k!r}")
            return self._seated(ThreatSpec(name, k).resolve())
        except (UserError, ValueError) as error:
            self._checker.report(place, str(error))
            return None

    def _seated(self, threat: ThreatModel) -> ThreatModel:
        tasks = self._config.tasks if self._config else {}
        for name, task in tasks.items():
            if threat.colluders >= task.clients:
                raise UserError(
                    f"'{threat.label}' seats the adversary at {threat.colluders} of the {task.clients} clients of task "
                    f"'{name}'; at least one must be left to attack"
                )
        return threat

    def _source(self, name: str, task: TaskConfig) -> bool:
        place = ("tasks", name, "data", "source")
        return self._reference("tasks", task.data.source, place) is not None

    def _systems(self, task: str) -> Mapping[str, ResolvedSystem]:
        assert self._config is not None
        systems = self._config.systems
        resolved = {name: self._system(task, name, system) for name, system in systems.items()}
        return {name: system for name, system in resolved.items() if system}

    def _system(self, task: str, name: str, system: SystemConfig) -> ResolvedSystem | None:
        assert self._config is not None
        place = ("systems", name)
        merged = _merge(self._config.tasks[task].model_dump(mode="json"), system.override)
        config = self._checker.validate(TaskConfig, merged, prefix=(*place, "override"))
        found = self.references("defenses", system.defenses, (*place, "defenses"))
        if config is None or any(entry is None for entry in found):
            return None
        entries = [entry for entry in found if entry]
        try:
            self._conflicts([cls(cls.Config.model_validate(c)) for _, cls, c in entries], config, place)
        except Exception as error:  # noqa: BLE001 - a defense is code that anybody may have written
            self._checker.report((*place, "defenses"), f"a defense fails before anything is trained: {told(error)}")
        origins = registry("defenses", base=self._base)
        versions = tuple(plugin_version(cls, origin=origins.origin(n)) for n, cls, _ in entries)
        return ResolvedSystem(name, config, tuple((n, c) for n, _, c in entries), versions, _twin(self._config, system))

    def _conflicts(self, defenses: Sequence[Defense[Any]], task: TaskConfig, place: Place) -> None:
        taken: dict[str, str] = {}
        names = [defense.name for defense in defenses]
        for i, defense in enumerate(defenses):
            others = [d for d in defenses if d is not defense]
            reason = defense.conflict(others, optimizer=task.training.optimizer.kind)
            for slot in sorted(defense.exclusive):
                if slot in taken:
                    reason = f"{defense.name} cannot stand with {taken[slot]}: both set the {slot}"
                taken[slot] = defense.name
            if defense.name in names[:i]:
                reason = f"{defense.name} is listed twice"
            if reason:
                self._checker.report((*place, "defenses", i), reason)


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``left`` with the keys of ``right`` over it, mappings merged."""
    merged = dict(left)
    for key, value in right.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _twin(config: SuiteConfig, system: SystemConfig) -> str:
    """Return the undefended system with the same overrides, or else the first undefended one."""
    plain = {name: s for name, s in config.systems.items() if not s.defenses}
    same = [name for name, s in plain.items() if s.override == system.override]
    return (same or list(plain))[0]


def known_threats() -> list[str]:
    """Return the names of the presets."""
    return [model.name for model in presets()]
