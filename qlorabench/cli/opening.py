"""What ``check`` opens of a suite: data, and the configurations of backbones; no weights, and nothing is fetched."""

from __future__ import annotations

from typing import Any

from qlorabench.errors import TaskError, UserError
from qlorabench.suite.loading import Examined
from qlorabench.suite.references import split_reference
from qlorabench.suite.schema import TaskConfig
from qlorabench.suite.yaml_marks import Place


def open_all(examined: Examined) -> list[str]:
    """Report what ``run`` would refuse of the data and the backbone of each task; return a line for each thing seen."""
    said = []
    for name, task in examined.parts.tasks.items():
        for what, look in (("data", _look_at_data), ("backbone", _look_at_backbone)):
            try:
                said += [f"{name}: {what} {line}" for line in look(examined, name, task)]
            except _Found as found:
                for place, message in found.problems:
                    if not examined.checker.wrong_at(place):
                        examined.checker.report(place, message)
    return said


class _Found(Exception):
    """Problems, each with its place."""

    def __init__(self, *problems: tuple[Place, str]) -> None:
        self.problems = problems


def _look_at_data(examined: Examined, name: str, task: TaskConfig) -> list[str]:
    """Load the data of a task and deal it as for each seed; return what it is, and what was left out."""
    from qlorabench.tasks.task import check_data

    source = split_reference(task.data.source)[0]
    if examined.checker.wrong_at(("tasks", name, "data", "source")):
        return [f"{source}: not opened"]
    tokenizer = _tokenizer_at_hand(task, examined)
    try:
        report = check_data(task, base=examined.file.parent, tokenizer=tokenizer, seeds=examined.parts.seeds)
    except TaskError as error:
        raise _Found((("tasks", name, error.place), str(error))) from error
    except UserError as error:
        raise _Found((("tasks", name, "data", "source"), str(error))) from error
    if report.unchecked:
        return [f"not checked: {report.unchecked}"]
    return [f"{report.name}: {report.used:,} rows", *report.lines()]


def _tokenizer_at_hand(task: TaskConfig, examined: Examined) -> Any:
    """Return the tokenizer of a backbone that is a folder or a toy; ``None`` where it is elsewhere, or broken."""
    from qlorabench.tasks.backbones import load_tokenizer
    from qlorabench.tasks.places import TOY, TOY_LM

    name, base = task.backbone.name, examined.file.parent
    if name not in (TOY, TOY_LM) and not (base / name).is_dir():
        return None
    try:
        return load_tokenizer(task.backbone, base=base)
    except UserError:  # it is told of the backbone
        return None


def _look_at_backbone(examined: Examined, name: str, task: TaskConfig) -> list[str]:
    """Hold lengths and targets of a task, and of systems that set their own, against the backbone's configuration."""
    from qlorabench.tasks.inspection import check_positions, inspect_backbone
    from qlorabench.tasks.targets import summarised, wrong_targets

    try:
        facts = inspect_backbone(task.backbone, base=examined.file.parent, objective=task.objective)
    except UserError as error:
        raise _Found((("tasks", name, "backbone"), str(error))) from error
    problems: list[tuple[Place, str]] = []
    try:
        check_positions(task.data.max_length, facts.positions, backbone=facts.name)
    except UserError as error:
        problems.append((("tasks", name, "data", "max_length"), str(error)))
    for place, targets in _targets(examined, name, task):
        for target, why in wrong_targets(targets, facts.layers).items():
            problems.append(((*place, list(targets).index(target)), f"'{target}' {why}"))
    if problems:
        raise _Found(*problems)
    bound = f"at most {facts.positions} tokens" if facts.positions else "texts of any length"
    matched = facts.match(task.lora.targets).items()
    return [f"{facts.name}: {bound}", *(f"target '{target}': {summarised(layers)}" for target, layers in matched)]


def _targets(examined: Examined, name: str, task: TaskConfig) -> list[tuple[Place, list[str]]]:
    """Return the targets of a task and of the systems that set their own, each with its place."""
    found: list[tuple[Place, list[str]]] = [(("tasks", name, "lora", "targets"), list(task.lora.targets))]
    for key, system in examined.parts.systems.items():
        own = system.override.get("lora", {})
        if isinstance(own, dict) and isinstance(targets := own.get("targets"), list):
            found.append((("systems", key, "override", "lora", "targets"), [str(target) for target in targets]))
    return found
