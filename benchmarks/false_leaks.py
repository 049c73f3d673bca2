"""How often membership leaks without any signal, and how often a signal shows: `python -m benchmarks.false_leaks`.

A lower end of the leakage above 0 is what a leaderboard takes for a leak; where scores know nothing it may be so in
2.5 % of all draws. The first table is TPR at 1 % FPR, beside the interval that takes the threshold for given. The
second is the AUC: of single examples; of scores that tell labels, with the label shares of dirichlet clients, matched
and not; and of members that score higher whoever trained, with and without an untrained adapter as the control.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.table import Table

from qlorabench.scoring.intervals import Interval
from qlorabench.scoring.membership import advantage_leakage, auc_leakage, tpr_at_fpr
from qlorabench.scoring.ranks import Matched

MANY = 10_000
TRIALS = 400
COUNTS = (20, 100, 1000)
FLIPS, DRAWS = 4, 400
"""Fewer coins and resamples than scores get, for the sake of time."""
PAIRS = (20, 100)
Game = tuple[np.ndarray, np.ndarray, Matched | None]
"""Scores, who is a member, and how they are matched."""


def at_threshold(count: int, *, exposed: float) -> tuple[float, float, float]:
    """Return how often TPR at 1 % FPR leaks: conditional on the threshold, with its noise, and beyond ``exposed``."""
    rng, members = np.random.default_rng(0), np.arange(2 * count) < count
    conditional = joint = beyond = 0
    for _ in range(MANY // 10 if count > 100 else MANY):
        scores = rng.normal(size=2 * count) + 100.0 * (members & (rng.random(2 * count) < exposed))
        point = tpr_at_fpr(scores, members=members, fpr=0.01)
        # as if the threshold's rate were known
        conditional += (point.tpr.low or 0.0) > (point.fpr.value or 0.0)
        joint += (point.leakage.low or 0.0) > 0
        beyond += (point.leakage.low or 0.0) > exposed
    tried = MANY // 10 if count > 100 else MANY
    return conditional / tried, joint / tried, beyond / tried


def single(rng: Generator, pairs: int) -> Game:
    """Scores that know nothing, not matched."""
    return rng.normal(size=2 * pairs), np.arange(2 * pairs) < pairs, None


def labels(rng: Generator, pairs: int, *, matched: bool) -> Game:
    """Scores that tell labels, three standard deviations apart; clients hold each label in a share of their own."""
    share = rng.dirichlet([0.05 * 0.5] * 2, 3).mean(0)[0]
    inside = rng.random(pairs) < share
    outside = inside if matched else rng.random(pairs) < 0.5
    scores = rng.normal(size=2 * pairs) + 3.0 * np.concatenate([inside, outside])
    strata = np.concatenate([inside, outside]).astype(np.int64)
    known = Matched(np.tile(np.arange(pairs), 2), strata) if matched else None
    return scores, np.arange(2 * pairs) < pairs, known


def favoured(rng: Generator, pairs: int, *, null: bool, trained: float = 0.0) -> Game:
    """Members that score .5 higher whoever trained, and ``trained`` higher where they were; a third is left out."""
    members, hard = np.arange(2 * pairs) < pairs, rng.normal(size=2 * pairs)
    scores, other = (hard + 0.5 * rng.normal(size=2 * pairs) + 0.5 * members for _ in range(2))
    which = np.tile(np.arange(pairs), 2)
    other[(rng.permutation(pairs) < pairs // 3)[which]] = np.nan
    return scores + trained * members, members, Matched(which, np.zeros(2 * pairs, np.int64), other if null else None)


GAMES: dict[str, Callable[[Generator, int], Game]] = {
    "nothing, single examples": single,
    "labels, not matched": lambda rng, pairs: labels(rng, pairs, matched=False),
    "labels, matched": lambda rng, pairs: labels(rng, pairs, matched=True),
    "members favoured, chance as control": lambda rng, pairs: favoured(rng, pairs, null=False),
    "members favoured, untrained as control": lambda rng, pairs: favoured(rng, pairs, null=True),
    "the same and 1.0 by training": lambda rng, pairs: favoured(rng, pairs, null=True, trained=1.0),
}


def leaks(measure: Callable[..., Interval], game: Callable[[Generator, int], Game], pairs: int) -> float:
    """Return the share of trials in which the lower end lies above 0."""
    found = 0
    for number in range(TRIALS):
        rng = np.random.default_rng(number)
        scores, members, matched = game(rng, pairs)
        low = measure(scores, members=members, rng=rng, matched=matched, flips=FLIPS, draws=DRAWS).low
        found += low is not None and low > 0
    return found / TRIALS


def main() -> None:
    """Print both tables."""
    table = Table("members and others", "exposed", "above 0, threshold given", "above 0", "above what is exposed")
    for count in COUNTS:
        for exposed in (0.0, 0.05, 0.2, 0.5):
            given, joint, beyond = at_threshold(count, exposed=exposed)
            table.add_row(str(count), str(exposed), f"{given:.3f}", f"{joint:.3f}", f"{beyond:.3f}")
    Console(width=100).print(table)
    table = Table("scores tell", "pairs", "AUC above 0", "advantage above 0")
    for name, game in GAMES.items():
        for pairs in PAIRS:
            found = [f"{leaks(measure, game, pairs):.3f}" for measure in (auc_leakage, advantage_leakage)]
            table.add_row(name, str(pairs), *found)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
