"""The parts of a suite that can be looked at further, though other things in it are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from qlorabench.suite.schema import SuiteConfig, SystemConfig, TaskConfig
from qlorabench.suite.validation import places
from qlorabench.suite.yaml_marks import Place

M = TypeVar("M", bound=BaseModel)
_TASKS, _SYSTEMS, _REFERENCES = 20, 50, 100
"""As many of each are looked at in a suite that is wrong: nobody reads more at once."""
_TRIES = 3
"""A value may hide another one in what it stands in, so that mending takes turns."""


@dataclass(frozen=True)
class Parts:
    """Tasks, systems and references of one suite, the wrong ones left out."""

    tasks: Mapping[str, TaskConfig]
    systems: Mapping[str, SystemConfig]
    sources: Mapping[str, Any]
    """The data source of each task, also of those that are wrong elsewhere."""
    defenses: Mapping[str, Sequence[Any]]
    """The defenses of each system, also of those that are wrong elsewhere."""
    threats: Sequence[Any]
    attacks: Sequence[Any]
    seeds: Sequence[int]


def parts_of(config: SuiteConfig) -> Parts:
    """Return all parts of a suite in which nothing is wrong so far."""
    return Parts(
        config.tasks,
        config.systems,
        {name: task.data.source for name, task in config.tasks.items()},
        {name: system.defenses for name, system in config.systems.items()},
        config.threats,
        config.attacks,
        config.seeds,
    )


def salvage(data: Mapping[Any, Any]) -> Parts:
    """Return the parts of a suite whose shape is wrong somewhere; a wrong value is taken for its default.

    Only what is right enough is kept, so that nothing here is a second word on what is wrong already.
    """
    tasks = _mapping(data.get("tasks"), most=_TASKS)
    systems = _mapping(data.get("systems"), most=_SYSTEMS)
    seeds = data.get("seeds", [0])
    return Parts(
        {name: task for name, raw in tasks.items() if (task := _mended(TaskConfig, raw))},
        {name: system for name, raw in systems.items() if (system := _mended(SystemConfig, raw))},
        {name: _mapping(_mapping(raw).get("data")).get("source") for name, raw in tasks.items()},
        {name: _list(_mapping(raw).get("defenses")) for name, raw in systems.items()},
        _list(data.get("threats")),
        _list(data.get("attacks")),
        [seed for seed in _list(seeds) if type(seed) is int and 0 <= seed < 2**63],
    )


def _mapping(found: Any, *, most: int = _REFERENCES) -> Mapping[str, Any]:
    pairs = [(key, value) for key, value in found.items() if isinstance(key, str)] if isinstance(found, dict) else []
    return dict(pairs[:most])


def _list(found: Any) -> list[Any]:
    return found[:_REFERENCES] if isinstance(found, list) else []


def _mended(model: type[M], data: Any) -> M | None:
    """Return ``data`` as a ``model``, without the values that are wrong in it; ``None`` where that is not enough."""
    for _ in range(_TRIES):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for place in places(model, error):
                data = _without(data, place)
    return None


def _without(data: Any, place: Place) -> Any:
    """Return ``data`` without the value at ``place``."""
    if not place:
        return data
    first, rest = place[0], place[1:]
    if isinstance(data, dict) and first in data:
        kept = {key: value for key, value in data.items() if key != first}
        return {**data, first: _without(data[first], rest)} if rest else kept
    if isinstance(data, list) and isinstance(first, int) and first < len(data):
        inside = [_without(data[first], rest)] if rest else []
        return [*data[:first], *inside, *data[first + 1 :]]
    return data
