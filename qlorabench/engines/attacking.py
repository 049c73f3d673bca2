"""Runs the code of an attack, which anybody may have written: whatever it does wrong is said of it alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from qlorabench.engines.failures import AttackFailed
from qlorabench.errors import DamagedError, told
from qlorabench.threats.attack import homes
from qlorabench.threats.claims import Claim
from qlorabench.threats.form import claim_problem
from qlorabench.threats.view import View


def run_attack(cls: Any, config: dict[str, Any], view: View, rng: np.random.Generator, *, candidates: int) -> Claim:
    """Return the claim of the attack ``cls``; raises AttackFailed where it raises, or claims what cannot be judged.

    ``candidates`` is how many examples the membership game of the view asks about.
    """
    with blamed(cls):
        claim: Claim = cls(cls.Config.model_validate(config)).run(view, rng)
    problem = claim_problem(
        claim,
        cls.goal,
        clients=view.facts.clients,
        candidates=candidates,
        adapter={spec.name: spec.shape for spec in view.facts.travelling},
    )
    if problem:
        raise AttackFailed(f"{cls.__name__}.run: {problem}")
    return claim


@contextmanager
def blamed(cls: type) -> Iterator[None]:
    """Turn what is raised inside into AttackFailed, a UserError of the attack's own too; a damaged file is not its."""
    try:
        yield
    except (DamagedError, AttackFailed):
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise AttackFailed(told(error, within=homes(cls))) from error
