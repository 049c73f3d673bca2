"""From a checked suite to its plug-ins: references become classes with configs, overrides become tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qlorabench.errors import UserError
from qlorabench.suite.schema import SuiteConfig, TaskConfig
from qlorabench.threats.attack import Attack, misfit
from qlorabench.threats.models import ThreatModel


@dataclass(frozen=True)
class ResolvedSystem:
    """A system on one task: the task with the system's overrides, and its defenses with full configs."""

    name: str
    task: TaskConfig
    defenses: tuple[tuple[str, dict[str, Any]], ...]
    versions: tuple[str, ...]
    """Version of each defense's plug-in, with a hash of its code."""
    twin: str
    """The undefended system on the same training that is its positive control; its own name where it has no defense."""
    control_of: tuple[str, ...] = ()
    """The systems that it was added for as their twin; none where the suite itself names it."""


@dataclass(frozen=True)
class ResolvedAttack:
    """An attack with its full config."""

    label: str
    """Its name, numbered where a suite lists it more than once."""
    name: str
    cls: type[Attack[Any]]
    config: dict[str, Any]
    version: str

    def build(self) -> Attack[Any]:
        """Return the attack."""
        return self.cls(self.cls.Config.model_validate(self.config))

    def misfit(self, threat: ThreatModel) -> str | None:
        """Return which required capability ``threat`` does not grant, else ``None``."""
        return misfit(self.cls, threat)


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite whose every name was found and every value is in range."""

    config: SuiteConfig
    base: Path
    """Folder of the suite file."""
    systems: Mapping[str, Mapping[str, ResolvedSystem]]
    """Task -> system name -> system."""
    threats: tuple[ThreatModel, ...]
    attacks: tuple[ResolvedAttack, ...]

    def with_seeds(self, seeds: Sequence[int]) -> ResolvedSuite:
        """Return the suite with other seeds; raises UserError where they are none that a suite may have."""
        try:
            config = SuiteConfig.model_validate({**self.config.model_dump(mode="json"), "seeds": list(seeds)})
        except ValidationError as error:
            raise UserError(f"seeds: {error.errors()[0]['msg']}") from error
        return replace(self, config=config)
