"""What ``check`` opens of a suite: data, and the configurations of backbones; no weights, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError, nearest
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
                said.append(f"{name}: {what} {look(examined, name, task)}")
            except _Found as found:
                for place, message in found.problems:
                    if not examined.checker.wrong_at(place):
                        examined.checker.report(place, message)
    return said


class _Found(Exception):
    """Problems, each with its place."""

    def __init__(self, *problems: tuple[Place, str]) -> None:
        self.problems = problems


def _look_at_data(examined: Examined, name: str, task: TaskConfig) -> str:
    """Load the data of a task and deal it as for each seed; return what it is."""
    from qlorabench.tasks.task import check_data

    place: Place = ("tasks", name, "data")
    source = split_reference(task.data.source)[0]
    if examined.checker.wrong_at((*place, "source")):
        return f"{source}: not opened"
    try:
        report = check_data(task, base=examined.file.parent, seeds=examined.parts.seeds)
    except UserError as error:
        raise _Found((place, str(error))) from error
    except Exception as error:  # the code of a plug-in
        raise _Found((place, f"'{source}' fails: {type(error).__name__}: {error}")) from error
    return "; ".join(report.lines())


def _look_at_backbone(examined: Examined, name: str, task: TaskConfig) -> str:
    """Hold lengths and targets of a task, and of systems that set their own, against the backbone's configuration."""
    place: Place = ("tasks", name, "backbone", "name")
    try:
        config = _configuration(task, examined.file.parent)
        if config is None:
            return f"{task.backbone.name}: not opened"
        modules = _linear_modules(config)
    except UserError as error:
        raise _Found((place, str(error))) from error
    problems: list[tuple[Place, str]] = []
    positions = getattr(config, "max_position_embeddings", None)
    if positions and task.data.max_length > positions:
        message = f"{task.data.max_length} tokens are more than the {positions} that '{task.backbone.name}' reads"
        problems.append((("tasks", name, "data", "max_length"), message))
    problems += _unmatched(task.lora.targets, modules, ("tasks", name, "lora", "targets"))
    for key, system in examined.parts.systems.items():
        own = system.override.get("lora", {})
        if isinstance(own, dict) and isinstance(targets := own.get("targets"), list):
            problems += _unmatched(targets, modules, ("systems", key, "override", "lora", "targets"))
    if problems:
        raise _Found(*problems)
    counts = ", ".join(f"{target} in {len(_matched(target, modules))} layers" for target in task.lora.targets)
    return f"{task.backbone.name}: at most {positions or 'any number of'} tokens; {counts}"


def _configuration(task: TaskConfig, base: Path) -> Any:
    """Return the configuration of a backbone that is at hand, else ``None``."""
    from transformers import AutoConfig

    from qlorabench.tasks.backbones import MINILM, TOY, TOY_LM
    from qlorabench.tasks.packages import MINILM_PACKAGE
    from qlorabench.tasks.toy import toy_model
    from qlorabench.tasks.toy_lm import toy_lm_model

    name = task.backbone.name
    if name in (TOY, TOY_LM):
        return (toy_model() if name == TOY else toy_lm_model()).config
    folder = MINILM_PACKAGE.folder / MINILM_PACKAGE.member if name == MINILM else base / name
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True) if folder.is_dir() else None
    except (OSError, ValueError) as error:
        raise UserError(f"the configuration in {folder} cannot be read: {str(error).splitlines()[0]}") from error


def _linear_modules(config: Any) -> list[str]:
    """Return the names of the linear modules of a model that is never given weights."""
    import torch
    from transformers import AutoModel
    from transformers.pytorch_utils import Conv1D

    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except (ValueError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise UserError(f"its configuration describes no text model: {str(error).splitlines()[0]}") from error
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]


def _unmatched(targets: Sequence[Any], modules: Sequence[str], place: Place) -> Iterator[tuple[Place, str]]:
    known = sorted({name.rpartition(".")[2] for name in modules})
    for i, target in enumerate(targets):
        if not _matched(str(target), modules):
            hint = f"{nearest(str(target), known)} Its linear layers: {', '.join(known)}"
            yield (*place, i), f"'{target}' is no linear layer of the backbone.{hint}"


def _matched(target: str, modules: Sequence[str]) -> list[str]:
    return [name for name in modules if f".{name}".endswith(f".{target}")]
