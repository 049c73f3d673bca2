"""The contract of an attack: it declares what it needs, looks at a view, and asserts a claim."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from qlorabench.errors import UserError, told
from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Claim, Goal
from qlorabench.threats.models import ThreatModel
from qlorabench.threats.view import View


class AttackConfig(BaseModel):
    """Base of every attack's configuration: frozen, unknown keys refused, every field described and ranged."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigT = TypeVar("ConfigT", bound=AttackConfig)


class Attack(Generic[ConfigT]):
    """An attack: one file, one frozen config, one method that matters.

    It never touches secrets and never computes a metric: a view holds what its seat is granted and nothing
    else, and the harness judges what the attack asserts.
    """

    name: ClassVar[str]
    """Name in suites, as registered."""
    version: ClassVar[int] = 1
    """Raised when the meaning of the attack changes."""
    goal: ClassVar[Goal]
    Config: ClassVar[type[AttackConfig]]
    requires: ClassVar[frozenset[Capability]]
    """What a threat model must grant."""
    uses: ClassVar[frozenset[Capability]] = frozenset()
    """What the attack makes use of where it is granted."""
    paper: ClassVar[str] = ""
    """Where the attack comes from."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def blind(self, facts: PublicFacts) -> str | None:
        """Return why the system leaves this attack no signal, else ``None``.

        It is asked before anything is trained: the layouts of ``facts`` are empty then, and the facts of its
        defenses too. A cell that is blind is recorded as unsupported, never as zero leakage.
        """
        return None

    def run(self, view: View, rng: np.random.Generator) -> Claim:
        """Return the claim."""
        raise TypeError(f"{type(self).__name__} does not define run(view, rng)")


def misfit(attack: type[Attack[AttackConfig]], threat: ThreatModel) -> str | None:
    """Return why ``attack`` has no place in the seat of ``threat``, else ``None``.

    Either a required capability is not granted, or the seat holds from the start what the attack is after.
    """
    if attack.goal is Goal.ADAPTER and Capability.SERVER_ADAPTER in threat.grants:
        return "holds the adapter already"
    missing = [c.value for c in Capability if c in attack.requires - threat.grants]
    return f"needs {', '.join(missing)}" if missing else None


def attack_problems(cls: type) -> list[str]:
    """Return what an attack's class leaves out or gets wrong, one sentence each; empty for a class as it should be."""
    problems = []
    if not isinstance(name := getattr(cls, "name", None), str) or not name:
        problems.append(f"it has no name: set 'name' to a text, found {name!r}")
    if not isinstance(goal := getattr(cls, "goal", None), Goal):
        problems.append(f"its goal must be one of {', '.join(f'Goal.{g.name}' for g in Goal)}, found {goal!r}")
    config = getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, AttackConfig)):
        problems.append(f"its Config must be a class derived from AttackConfig, found {config!r}")
    for field in ("requires", "uses"):
        found = getattr(cls, field, None)
        if not isinstance(found, set | frozenset) or not all(isinstance(c, Capability) for c in found):
            problems.append(f"its '{field}' must be a set of Capability (it may be empty), found {found!r}")
    if getattr(cls, "run", None) is Attack.run:
        problems.append("it does not define run(self, view, rng)")
    return problems


def blindness(cls: type[Attack[Any]], config: dict[str, Any], facts: PublicFacts) -> str | None:
    """Return what the attack's ``blind`` says of a system; raises UserError where its code fails before it is run."""
    try:
        said = cls(cls.Config.model_validate(config)).blind(facts)
        if said is not None and not isinstance(said, str):
            raise TypeError(f"blind returned a {type(said).__name__}; a text or None is wanted")
    except Exception as error:
        why = told(error, within=homes(cls))
        raise UserError(
            f"attack '{cls.name}' cannot say whether a system blinds it: {why}. Mend its __init__ and its blind()."
        ) from error
    return said


def homes(cls: type) -> set[Path]:
    """Return the folders that hold the code of an attack: its own file's, and those of the attacks it derives from."""
    own = [base for base in cls.__mro__ if issubclass(base, Attack) and base is not Attack]
    return {Path(inspect.getfile(base)).parent for base in own}
