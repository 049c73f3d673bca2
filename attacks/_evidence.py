"""Which words, and which words where: claims whose threshold comes from decoys and from the noise alone.

Shapes: V tokens, M positions, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._dictionary import Dictionary, Floats, Ints
from ._subspace import Space, log_chance, pair_residuals, unexplained, widened, word_residuals

COMPLETE = 0.1
"""Words or pairs that leave more than this of the rows' directions unexplained are not all: no position follows."""
_APART = 10.0
"""A word at a wrong position shares most of its vector: a position must be within this factor of the word's best
one, and by this factor closer than the median one, or else noise has blurred the positions."""


_LIKE = 3.0
"""There are as many inputs as directions; what lies as close as they, up to this factor, cannot be told from them
(words that share positions span each other's pairs), and what does not is a word like one of theirs."""
_SPREAD = 30.0
"""Residuals of what lies in the space differ by no more than this from their median."""
_EXACT = 1e-6
"""Float32 leaves about this residual of what lies in the space, sometimes less: closer than this is no better."""


@dataclass(frozen=True)
class Law:
    """How far a claim must stand out from chance."""

    share: float
    """Of the residual of the closest decoy."""
    false_alarm: float
    """False claims expected of a client in all."""

    @property
    def room(self) -> int:
        """Directions that must be left over: n of them let the closest wrong word in with probability share^n."""
        return math.ceil(math.log(self.false_alarm) / math.log(self.share))


@dataclass(frozen=True)
class Found:
    """What was claimed, or why nothing was."""

    items: Ints
    """(n,) token ids, or (n, 2) of (token id, position)."""
    why: str = ""


def find_words(dictionary: Dictionary, space: Space, *, decoy: Dictionary, law: Law) -> Found:
    """Return the tokens that occur at any position, from the rows of all updates together.

    x = (word + place) / spread + shift, so with places and shift in the basis a word is tested whatever its
    position and spread. The threshold is a share of the residual of the closest of V decoys.
    """
    none: Ints = np.zeros(0, np.int64)
    if not space.rank:
        return Found(none, "nothing above the noise")
    whole = widened(space, np.vstack([dictionary.places, dictionary.shift]))
    if whole.rank > whole.width - law.room:
        return Found(none, f"the updates fill the input space ({space.rank} of {space.width} dimensions)")
    residuals = word_residuals(dictionary, whole)
    closest = np.argsort(residuals, kind="stable")[: space.rank]  # as many words as directions at most
    cut = law.share * float(word_residuals(decoy, whole).min())
    found = np.sort(closest[residuals[closest] < cut])
    return Found(found, "" if len(found) else "no word closer than the decoys")


def find_pairs(dictionary: Dictionary, space: Space, *, decoy: Dictionary, law: Law) -> Found:
    """Return the (token, position) pairs whose inputs lie in the rows of one update.

    It holds when the update has fewer tokens than rows, which shows in a rank below the number of rows. Noise
    lowers the rank too; so the pairs must make up the whole of the rows, or none is claimed.
    """
    none: Ints = np.zeros((0, 2), np.int64)
    if space.rank >= space.rows:
        return Found(none, f"{space.rank} tokens or more in {space.rows} rows")
    if not 0 < space.rank <= space.width - law.room:
        return Found(none, "nothing above the noise" if not space.rank else "the update fills the input space")
    residuals = pair_residuals(dictionary, space)
    cut = law.share * float(pair_residuals(decoy, space).min())
    best, typical = residuals.min(1, keepdims=True), np.median(residuals, axis=1, keepdims=True)
    placed = (residuals <= _APART * best) & (_APART * residuals <= typical)
    found = np.argwhere((residuals < cut) & (placed | (not dictionary.tells_places)))
    if not len(found) or unexplained(space, dictionary.inputs(*found.T)) > COMPLETE:
        return Found(none, "no pairs closer than the decoys make up the update")
    return Found(found)


@dataclass(frozen=True)
class Lens:
    """The dictionary and its decoy behind the frozen A of one module, and the space of that module's update."""

    dictionary: Dictionary
    decoy: Dictionary
    space: Space
    """In R^rank."""


def find_projected_pairs(lenses: Sequence[Lens], *, false_alarm: float) -> Found:
    """Return the (token, position) pairs that the modules' updates of B agree on.

    Each module gives -ln of the chance that a random direction of R^rank lies as close; the sum over n modules
    follows Gamma(n) under chance. A claim beats that law at ``false_alarm`` expected false claims in all. Words
    share directions, which the law does not know and decoys do: so it beats the best decoy as well, by the
    ln(1 / false_alarm) nats in which an exponential tail thins out that far.
    """
    from scipy.stats import gamma

    none: Ints = np.zeros((0, 2), np.int64)
    live = [lens for lens in lenses if 0 < lens.space.rank < lens.space.width]
    if not live:
        full = any(lens.space.rank for lens in lenses)
        return Found(none, f"tokens >= rank {lenses[0].space.width}" if full else "nothing above the noise")
    true = _evidence([(lens.dictionary, lens.space) for lens in live])
    false = _evidence([(lens.decoy, lens.space) for lens in live])
    cut = max(float(gamma.isf(false_alarm / true.size, len(live))), float(false.max()) - math.log(false_alarm))
    depths = np.mean([np.log(pair_residuals(lens.dictionary, lens.space)) for lens in live], axis=0)
    found = np.argwhere((true > cut) & _nearest(depths))
    kept = depths[tuple(found.T)] <= _deepest(depths[tuple(found.T)], inputs=max(lens.space.rank for lens in live))
    found = found[kept]
    return Found(found, "" if len(found) else "no pair above chance and decoys")


def _deepest(depths: Floats, *, inputs: int) -> float:
    """Return the depth of the last of ``inputs`` pairs with some slack, but not far beyond that of half of them.

    An input that carries hardly any gradient shows nowhere, and what comes in its place is no input at all.
    """
    if not len(depths):
        return 0.0
    first = np.sort(depths)[:inputs]
    half = max(float(np.median(first)), math.log(_EXACT))
    return min(float(first[-1]) + math.log(_LIKE), half + math.log(_SPREAD))


def _nearest(depths: Floats) -> npt.NDArray[np.bool_]:
    """Tell for every pair whether it lies about as close as its word at the word's best position, (V, M).

    ``depths`` are logarithms of residuals, the mean over the modules: one noisy module does not decide.
    """
    best = np.maximum(depths.min(1, keepdims=True), np.log(_EXACT))
    near: npt.NDArray[np.bool_] = depths <= best + np.log(_APART)
    return near


def _evidence(sources: Sequence[tuple[Dictionary, Space]]) -> Floats:
    """Return the evidence for every pair in nats, (V, M)."""
    total: Floats = np.zeros(sources[0][0].spread.shape)
    for dictionary, space in sources:
        total -= log_chance(pair_residuals(dictionary, space), space)
    return total
