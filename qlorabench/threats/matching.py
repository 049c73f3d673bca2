"""Rows that nobody trained on, chosen to be like rows that somebody did: of the same label, and of the same group.

Clients rarely hold what the held-out rows hold: partitions skew labels, or deal whole groups (films, customers). What
tells the two sides apart is then no sign of training, unless they are alike in label and group.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from qlorabench.tasks.task import PreparedTask

Trait = Callable[[int], Hashable]
"""What a row has that its match must have too."""


class Match(NamedTuple):
    """A row that was trained on and one that was not."""

    inside: int
    outside: int
    level: int
    """Which of the traits they share: the first one, 0, is the narrowest."""
    trait: Hashable


def traits(task: PreparedTask, *, column: str | None) -> list[Trait]:
    """Return what rows of ``task`` are to share, the narrowest first.

    It is the label; where the partition deals whole groups of ``column`` to clients, label and group before that.
    """
    labels = task.encoded.labels

    def label(row: int) -> Hashable:
        return int(labels[row])

    if column is None or column not in task.groups:
        return [label]
    groups = task.groups[column]

    def label_and_group(row: int) -> Hashable:
        return int(labels[row]), groups[row] if row < len(groups) else None  # canaries stand behind the table

    return [label_and_group, label]


def match(inside: Iterable[int], outside: Iterable[int], shared: Sequence[Trait], *, most: int) -> list[Match]:
    """Return at most ``most`` pairs of rows that share a trait, no row in two, as many as the narrowest allow first.

    Rows are taken in the order they come in: shuffle both before.
    """
    left, free = [int(row) for row in inside], [int(row) for row in outside]
    found: list[Match] = []
    for level, trait in enumerate(shared):
        queues: dict[Hashable, deque[int]] = defaultdict(deque)
        for row in free:
            queues[trait(row)].append(row)
        for row in left:
            if len(found) < most and queues[trait(row)]:
                found.append(Match(row, queues[trait(row)].popleft(), level, trait(row)))
        used = {row for pair in found for row in pair[:2]}
        left, free = ([row for row in rows if row not in used] for rows in (left, free))
    return found
