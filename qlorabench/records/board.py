"""What a leaderboard holds: a row for each system of a task, in each place a number or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["measured", "not validated", "unsupported", "failed", "timeout", "unscored", "not run"]
"""What became of a cell; ``unscored``: it ended well, but its number is missing."""

Utility = Literal["accuracy", "perplexity"]
"""How good a classifier is, or a language model."""

GOALS = ("reconstruction", "verification", "membership", "adapter", "extraction")
"""What attacks are after, in the order of the columns."""


@dataclass(frozen=True)
class Quantity:
    """One number of a system, over its seeds."""

    state: State
    """``measured`` only where every seed was; no mean is taken over the seeds that are left."""
    value: float | None = None
    """Mean over seeds; of epsilon the largest, for it is a guarantee."""
    low: float | None = None
    """Lowest end of the seeds' intervals; where rows have none, the smallest value of several seeds."""
    high: float | None = None
    control: float | None = None
    """Utility: what needs no training (the better of majority class and bare backbone), mean over seeds."""
    learned: bool | None = None
    """Utility: whether it is better than the control with every seed."""
    lost_seeds: int = 0
    """Seeds without a number."""
    reasons: tuple[str, ...] = ()
    """Why numbers are missing."""


@dataclass(frozen=True)
class Leak:
    """The worst that any attack from any seat did to a system towards one goal."""

    state: State
    """``measured`` where a number is shown; the cells without one are counted in ``cells``."""
    value: float | None = None
    """Leakage, the advantage over the negative control. Mean over all seeds that have one; ``lost`` says of how many
    it is missing."""
    low: float | None = None
    """Ends of the interval over seeds, see `qlorabench.records.over_seeds`."""
    high: float | None = None
    attack: str | None = None
    threat: str | None = None
    metric: str | None = None
    validated: bool | None = None
    """Whether the same headline of the attack leaks on the undefended twin, all its seeds taken together."""
    seeds: int = 0
    """Seeds that the attack shown was planned with."""
    lost: Mapping[State, int] | None = None
    """Those of them without a number, in each state."""
    cells: Mapping[State, int] | None = None
    """Cells (one attack, one seat, one seed) in each state."""
    note: str = ""
    """Note of the seed that leaks most."""
    reasons: tuple[str, ...] = ()
    """Why cells are unsupported, failed, timed out, unscored or not validated, each reason once."""


@dataclass(frozen=True)
class BoardRow:
    """One system of one task."""

    system: str
    utility_server: Quantity
    """Accuracy (or perplexity, see `TaskBoard.utility`) of the adapter that the server holds."""
    utility_client: Quantity
    """The same of the adapter that a client holds."""
    bytes_down_client_round: Quantity
    bytes_up_client_round: Quantity
    bytes_total: Quantity
    epsilon: Quantity
    """Largest epsilon of a client; without a value where no differential privacy is accounted."""
    dropout: Quantity
    """Highest rate at which clients drop out while they train; without a value in results of before it was recorded."""
    leaks: Mapping[str, Leak]
    """By goal."""


@dataclass(frozen=True)
class TaskBoard:
    """The systems of one task of one suite, in the order of the plan."""

    suite: str
    task: str
    seeds: tuple[int, ...]
    utility: Utility
    """What utility is; of perplexity less is better."""
    rows: tuple[BoardRow, ...]
    folder: str | None = None
    """Where the rows lie, where another folder holds another configuration of the same name."""

    @property
    def goals(self) -> tuple[str, ...]:
        """Goals towards which any attack was run or planned, in the order of the columns; the others have none."""
        return tuple(goal for goal in GOALS if any(row.leaks[goal].cells for row in self.rows))


@dataclass(frozen=True)
class Board:
    """A leaderboard, a part for each suite and task."""

    tasks: tuple[TaskBoard, ...]
    notes: tuple[str, ...] = ()
    """What else lies in the folders, and is not shown."""
