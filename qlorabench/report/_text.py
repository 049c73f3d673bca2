"""The words and numbers of a leaderboard, shared by the terminal and by markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qlorabench.records.board import Board, Leak, Quantity, State, TaskBoard, Utility
from qlorabench.records.record import Record
from qlorabench.scoring.score import CAVEATS

_UTILITY: dict[Utility, str] = {
    "accuracy": "accuracy: mean over seeds [ends of the 95 % intervals]; base: the better of majority class and bare "
    "backbone; 'not learned': no paired gain over both, so that low leakage says nothing about the defenses.",
    "perplexity": "perplexity of the test texts, less is better: mean over seeds [ends of the 95 % intervals]; "
    "base: the bare backbone; 'not learned': no paired gain over it, so that low leakage says nothing about the "
    "defenses.",
}
_LEGEND = (
    "bytes: as serialised, 1 kB = 1000 B. epsilon: the largest client's and seed's; '-' without differential "
    "privacy. Elsewhere '-' means that nothing was run.",
    "leakage: advantage over the negative control, 0 to 1; the worst attack from the worst seat, the highest of "
    "those that are measured (lower end above 0) if any is. Several seeds: the mean, with an interval that holds what "
    "varies within seeds and between them.",
    "'no utility gap': clients hold a model as good as the server's, so there is nothing to protect; 'exact "
    "broadcast': every client holds the adapter itself; 'nothing claimed': the attack found itself without a "
    "signal, which is no proof against others.",
    "'not validated': the attack did not succeed on the undefended twin, all seeds taken together, so a low number is "
    "no evidence of protection. A leak that is measured (lower end above 0) counts even so.",
    "'+ 1 of 3 seeds failed': the attack shown gave no number with one seed, and the mean is that of the others. "
    "'+ 1 failed': one cell of another attack (from a seat, with a seed) gave none; the worst may be among such.",
)

NOTHING = "No records yet: run a suite first."
"""What stands in the place of an empty board."""

_TROUBLE: tuple[State, ...] = ("failed", "timeout", "unscored", "not run")


def title(task: TaskBoard) -> str:
    """Return the heading of one part of a board."""
    parts = [plural(len(task.seeds), "seed"), dropout_text(task), f"in {task.folder}" if task.folder else ""]
    return f"{task.suite} / {task.task}, {', '.join(filter(None, parts))}"


def dropout_text(task: TaskBoard) -> str:
    """Return how much clients drop out while they train; empty where it was not recorded."""
    systems: dict[float, list[str]] = {}
    for row in task.rows:
        if row.dropout.value is not None:
            systems.setdefault(row.dropout.value, []).append(row.system)
    if len(systems) < 2:
        return "".join("dropout off" if rate == 0 else f"dropout {rate:g}" for rate in systems)
    off = " (off in the others)" if 0.0 in systems else ""
    rates = (f"{rate:g} in {', '.join(names)}" for rate, names in sorted(systems.items()) if rate)
    return f"dropout {'; '.join(rates)}{off}"


def legend(board: Board) -> tuple[str, ...]:
    """Return how to read the leaderboard, a paragraph for each thing it shows."""
    shown = {task.utility for task in board.tasks}
    return (*(said for utility, said in _UTILITY.items() if utility in shown), *_LEGEND)


def plural(count: int, noun: str) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def byte_text(count: float) -> str:
    """Return a number of bytes in three digits or so, as in ``12.3 kB``."""
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5 or unit == "GB":
            break
    return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"


def span(value: float | None, low: float | None, high: float | None, *, digits: int) -> str:
    """Return a number with its interval, as in ``0.31 [0.20, 0.42]``."""
    if value is None:
        return "-"
    said = f"{value:.{digits}f}"
    return said if low is None or high is None else f"{said} [{low:.{digits}f}, {high:.{digits}f}]"


def utility_lines(quantity: Quantity, utility: Utility, *, seeds: int) -> list[str]:
    """Return an accuracy or a perplexity, its base, and whether the system has learned."""
    if quantity.value is None:
        return [lost_text(quantity, seeds=seeds)]
    digits = 3 if utility == "accuracy" else 1
    base = "" if quantity.control is None else f"base {quantity.control:.{digits}f}"
    marks = [base, "not learned" if quantity.learned is False else ""]
    return [span(quantity.value, quantity.low, quantity.high, digits=digits), *filter(None, marks)]


def bytes_text(quantity: Quantity, *, seeds: int) -> str:
    """Return a number of bytes, or why there is none."""
    return lost_text(quantity, seeds=seeds) if quantity.value is None else byte_text(quantity.value)


def epsilon_text(quantity: Quantity, *, seeds: int) -> str:
    """Return epsilon, or a dash where none is accounted."""
    if quantity.value is not None:
        return f"{quantity.value:.3g}" if quantity.value < 100 else f"{quantity.value:.0f}"
    unlimited = quantity.state == "unscored" and quantity.lost_seeds == seeds
    return "-" if unlimited else lost_text(quantity, seeds=seeds)


def lost_text(quantity: Quantity, *, seeds: int) -> str:
    """Return why a quantity has no number, with how many seeds are lost if not all."""
    if quantity.lost_seeds < seeds:
        return f"{quantity.state} ({quantity.lost_seeds} of {seeds} seeds)"
    return "-" if quantity.state == "not run" else quantity.state


def leak_lines(leak: Leak) -> list[str]:
    """Return the leakage towards one goal, who it is due to, and what stands beside it."""
    own = leak.lost or {}
    trouble = {state: count for state in _TROUBLE if (count := (leak.cells or {}).get(state, 0) - own.get(state, 0))}
    beside = " + ".join(f"{count} {state}" for state, count in trouble.items())
    if leak.value is not None:
        number = span(leak.value, leak.low, leak.high, digits=2)
        caveats = [short for note, short in CAVEATS.items() if note in leak.note]
        seeds = [f"+ {count} of {leak.seeds} seeds {state}" for state, count in own.items()]
        return [number, *seeds, *([f"+ {beside}"] if beside else []), f"{leak.attack}, {leak.threat}", *caveats]
    if leak.state == "not run":  # and no cell in another state, which would be said first
        return ["-"]
    if leak.state in trouble:
        return [leak.state if leak.cells == {leak.state: 1} else beside]
    return [f"{leak.state} + {beside}" if beside else leak.state]


def reasons(board: Board) -> Iterator[str]:
    """Yield what the board does not show, and why places of it hold no number, each reason of a system once."""
    yield from board.notes
    for task in board.tasks:
        for row in task.rows:
            quantities = (row.utility_server, row.utility_client, row.bytes_total)
            said = [reason for quantity in quantities for reason in quantity.reasons]
            said += [reason for leak in row.leaks.values() for reason in leak.reasons]
            yield from (f"{task.task}/{row.system}: {reason}" for reason in dict.fromkeys(said))


def by_task(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return records by the heading of their suite and task, in the order of the journal."""
    parts: dict[str, list[Record]] = {}
    for record in records:
        parts.setdefault(f"{record.suite} / {record.task}", []).append(record)
    return parts


def detail_lines(record: Record) -> list[list[str]]:
    """Return one leakage row as the lines of its places: who, metric, value, n, leakage."""
    who = [record.system, f"{record.attack}, {record.threat}", f"seed {record.seed}"]
    control = [] if record.control is None else [f"control {record.control:.3f}"]
    value = [span(record.value, record.low, record.high, digits=3), *control]
    leak = [span(record.leakage, record.leakage_low, record.leakage_high, digits=3)]
    if record.status != "ok":
        return [who, ["-"], [record.status], ["-"], ["-"]]
    validated = ["not validated"] if record.validated is False else []
    count = "-" if record.n is None else str(record.n)
    return [who, [record.metric], value, [count], leak + validated]
