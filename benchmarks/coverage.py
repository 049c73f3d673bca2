"""How often the interval of a mean of shares covers it: `python -m benchmarks.coverage`.

The first table draws shares from distributions of a known mean, most of them chosen because few shares of them tell
little of it; beside the interval that scores get stands the bootstrap alone. The second looks for the worst case of the
interval for few shares among those that take two values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.table import Table

from qlorabench.scoring.intervals import Interval, bootstrap, clopper_pearson, mean_of_shares

TRIALS = 400
MANY = 20_000
LEVELS = (0.9, 0.95, 0.99, 0.995)
COUNTS = (2, 5, 10, 14, 30)
SHARES: dict[str, tuple[float, Callable[[Generator, int], np.ndarray]]] = {
    "0 or 1, at .9": (0.9, lambda rng, n: (rng.random(n) < 0.9).astype(float)),
    ".5 or 1, at .9": (0.95, lambda rng, n: np.where(rng.random(n) < 0.9, 1.0, 0.5)),
    "1 or uniform": (0.75, lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, rng.random(n))),
    "0 or uniform, at .8": (0.1, lambda rng, n: np.where(rng.random(n) < 0.8, 0.0, rng.random(n))),
    "uniform": (0.5, lambda rng, n: rng.random(n)),
    "beta(5, 1)": (5 / 6, lambda rng, n: rng.beta(5, 1, n)),
    "beta(1, 20)": (1 / 21, lambda rng, n: rng.beta(1, 20, n)),
    "beta(.3, 3)": (1 / 11, lambda rng, n: rng.beta(0.3, 3, n)),
}
"""The mean of each distribution, and how it is drawn from."""


def covered(mean: float, draw: Callable[[Generator, int], np.ndarray], count: int) -> list[str]:
    """Return the share of trials in which each interval at 0.95 covers ``mean``, and how wide it is on average."""
    rng = np.random.default_rng(0)
    samples = [draw(rng, count) for _ in range(TRIALS)]
    methods: list[Callable[[np.ndarray], Interval]] = [
        lambda shares: mean_of_shares(shares, rng=rng),
        lambda shares: bootstrap(shares, lambda rows: float(rows.mean()), rng=rng),
    ]
    cells = []
    for method in methods:
        ends = np.array([(found.low, found.high) for found in map(method, samples)], dtype=float)
        hits = (ends[:, 0] - 1e-9 <= mean) & (mean <= ends[:, 1] + 1e-9)
        cells.append(f"{hits.mean():.2f} ({np.mean(ends[:, 1] - ends[:, 0]):.2f})")
    return cells


def two_values() -> list[tuple[float, float, float]]:
    """Return (lower value, upper value, probability of the upper one) of shares that take two values."""
    odds = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
    pairs = ((low, high) for low in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9) for high in (1.0, 0.8, 0.6) if low < high)
    return [(low, high, odd) for low, high in pairs for odd in odds]


def least_covered(level: float, count: int) -> float:
    """Return how rarely ``count`` shares of two values are covered, at the worst of `two_values`."""
    rng = np.random.default_rng(0)
    least = 1.0
    for low, high, odd in two_values():
        upper = np.arange(count + 1)
        found = [clopper_pearson(min(low * (count - k) + high * k, count), count, level=level) for k in upper.tolist()]
        ends = np.array([(interval.low, interval.high) for interval in found], dtype=float)
        mean = low + (high - low) * odd
        hits = (ends[:, 0] - 1e-9 <= mean) & (mean <= ends[:, 1] + 1e-9)
        least = min(least, float(hits[rng.binomial(count, odd, MANY)].mean()))
    return least


def main() -> None:
    """Print both tables."""
    table = Table("shares", "how many", "covered (width)", "by a bootstrap alone")
    for name, (mean, draw) in SHARES.items():
        for count in COUNTS:
            table.add_row(name, str(count), *covered(mean, draw, count))
    Console(width=100).print(table)
    counts = (1, 2, 3, 5, 8, 12, 20)
    table = Table("level", *map(str, counts), title=f"least coverage of so many shares, {len(two_values())} kinds each")
    for level in LEVELS:
        table.add_row(str(level), *(f"{least_covered(level, count):.4f}" for count in counts))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
