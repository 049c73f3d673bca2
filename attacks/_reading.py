"""What a client's updates give away, read in the way that suits what travels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ._dictionary import Dictionary, Floats, Ints
from ._evidence import COMPLETE, Law, Lens, find_pairs, find_projected_pairs, find_words
from ._observed import KEYS, Shown
from ._places import Pairs, find_places, marginals, pair_shares
from ._subspace import Space, nearest_words, row_space, unexplained, widened

_WIDE = 64
"""Rank above which a first look is cheaper than testing every word."""
_LOOK = 3000
"""Words and decoys that the first look leaves."""
_KEPT = 6
"""Dictionaries kept behind a factor: the modules of a layer, and some."""


@dataclass(frozen=True)
class Alone:
    """An update that could be read alone."""

    round: int
    pairs: Pairs
    """Every pair that its space holds."""
    inputs: int
    """How many different inputs made it: its rank. Pairs of the same words and positions can outnumber them."""
    shares: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """What share of its word's power each pair carries, where the rows tell."""


@dataclass(frozen=True)
class Reading:
    """Words of one client, where they stood, and what stood together in one update."""

    words: frozenset[int] = frozenset()
    places: Pairs = frozenset()
    updates: tuple[Pairs, ...] = ()
    """The pairs of each update that could be read alone."""
    note: str = ""
    alone: tuple[Alone, ...] = ()
    """The same updates, with what else is known of them, where the reader says it."""
    sentences: tuple[tuple[int, ...], ...] = ()
    """Token ids in order, special ones included."""


@dataclass(frozen=True)
class Bench:
    """The dictionaries and thresholds that all clients are read with."""

    dictionary: Dictionary
    decoy: Dictionary
    first: int | None
    """Token that opens every text, if the tokenizer has one."""
    law: Law
    iterations: int
    score: float
    _behind: dict[bytes, tuple[Dictionary, Dictionary]] = field(default_factory=dict, repr=False)

    def behind(self, factor: Floats) -> tuple[Dictionary, Dictionary]:
        """Return both dictionaries as seen behind ``factor`` A, (rank, d); a frozen A is looked through once."""
        key = hashlib.sha256(factor.tobytes()).digest()
        if key not in self._behind:
            if len(self._behind) >= _KEPT:
                self._behind.pop(next(iter(self._behind)))
            self._behind[key] = (self.dictionary.through(factor), self.decoy.through(factor))
        return self._behind[key]


def read_layer(bench: Bench, shown: Sequence[Shown]) -> Reading:
    """Read what the updates of a client show of the first adapted layer."""
    if any(update.of_a for update in shown):
        return read_trained(bench, [update for update in shown if update.of_a or update.of_b])
    moved = [update for update in shown if update.of_b]
    return read_frozen(bench, moved) if moved else Reading(note="no factor of layer 0 moved")


def read_trained(bench: Bench, updates: Sequence[Shown]) -> Reading:
    """Read the changes of trained factors: words from the rows of dA of all updates, pairs from each update alone."""
    rows = np.vstack([change.rows for update in updates for change in update.of_a])
    space = row_space(rows)
    found = find_words(bench.dictionary, space, decoy=bench.decoy, law=bench.law)
    alone = tuple(read for update in updates if (read := _alone(bench, update, found.items)).pairs)
    exact = frozenset[tuple[int, int]]().union(*(read.pairs for read in alone))
    words = frozenset(int(word) for word in found.items) | {token for token, _ in exact}
    note = found.why or f"{len(found.items)} tokens in {space.rank} dimensions"
    if alone:
        note += f"; {len(alone)} of {len(updates)} updates spelled out alone"
    if words == {token for token, _ in exact} or not bench.dictionary.tells_places:
        return _reading(words, exact, alone, note)
    known = np.vstack([bench.dictionary.words[found.items], bench.dictionary.places, bench.dictionary.shift])
    if unexplained(space, known) > COMPLETE:
        return _reading(words, exact, alone, f"{note}; words are missing, so no places follow")
    return _reading(words, exact | _fitted(bench, space, rows, found.items), alone, note)


def _reading(words: frozenset[int], places: Pairs, alone: Sequence[Alone], note: str) -> Reading:
    return Reading(words, places, tuple(read.pairs for read in alone), note, tuple(alone))


def _fitted(bench: Bench, space: Space, rows: Floats, words: Ints) -> Pairs:
    """Return where the words stood by the marginals of all rows."""
    seen = marginals(bench.dictionary, space, rows=rows, words=words)
    first = _index(words, bench.first)
    placed = find_places(seen, first=first, iterations=bench.iterations, score=bench.score)
    return _pairs((int(words[word]), int(place)) for word, place in placed)


def _alone(bench: Bench, update: Shown, words: Ints) -> Alone:
    """Return what one update shows: through dB where that has room, else in the rows of dA."""
    narrow = [change for change in update.of_b if row_space(change.rows).rank < change.rows.shape[1]]
    if narrow:
        read, _ = _projected(bench, update, false_alarm=bench.law.false_alarm)
        if read.pairs:
            return read
    return _in_rows(bench, update, words)


def _in_rows(bench: Bench, update: Shown, words: Ints) -> Alone:
    """Return the pairs in the rows of dA of one update, among the words of all updates where there are any."""
    if not update.of_a:
        return Alone(update.round, frozenset(), 0)
    space = row_space(np.vstack([change.rows for change in update.of_a]))
    tokens = words if len(words) else np.arange(len(bench.dictionary.words))
    some = len(words) > 0
    dictionary = bench.dictionary.only(tokens) if some else bench.dictionary
    decoy = bench.decoy.only(tokens) if some else bench.decoy
    found = find_pairs(dictionary, space, decoy=decoy, law=bench.law)
    pairs = _pairs((int(tokens[word]), int(place)) for word, place in found.items)
    return Alone(update.round, pairs, space.rank, _shares(bench, [(None, c.rows) for c in update.of_a], pairs))


def read_frozen(bench: Bench, updates: Sequence[Shown]) -> Reading:
    """Read the changes of B under a frozen A: each update alone, for all lie in one R^rank."""
    rate = bench.law.false_alarm / len(updates)
    found = [_projected(bench, update, false_alarm=rate) for update in updates]
    alone = [read for read, _ in found if read.pairs]
    places = frozenset[tuple[int, int]]().union(*(read.pairs for read in alone))
    said = [f"{len(alone)} of {len(updates)} updates read", *sorted({why for _, why in found if why})]
    return _reading(frozenset(token for token, _ in places), places, alone, "; ".join(said))


def _projected(bench: Bench, update: Shown, *, false_alarm: float) -> tuple[Alone, str]:
    """Return the pairs that one update shows through dB, and why there are none.

    The opening token alone is no find: it is put into the space of the keys.
    Behind a wide factor most words are far away, as are most decoys: those that a first look leaves are tested.
    """
    spaces = [(change.module, row_space(change.rows)) for change in update.of_b]
    open_ = [(module, space) for module, space in spaces if 0 < space.rank < space.width]
    tokens: Ints = np.arange(len(bench.dictionary.words))
    decoys, wide = tokens, [pair for pair in open_ if pair[1].width > _WIDE and not _is_key(pair[0])]
    if wide:
        factor, space = update.factors[wide[0][0]], wide[0][1]
        tokens, decoys = (nearest_words(d, space, factor=factor, most=_LOOK) for d in (bench.dictionary, bench.decoy))
    pair = (bench.dictionary.only(tokens), bench.decoy.only(decoys)) if wide else None
    lenses = [lens for module, space in spaces for lens in _lens(bench, module, space, update, pair)]
    found = find_projected_pairs(lenses, false_alarm=false_alarm * len(tokens) / len(bench.dictionary.words))
    pairs = _pairs((int(tokens[word]), int(place)) for word, place in found.items)
    if not any(pair != (bench.first, 0) for pair in pairs):
        return Alone(update.round, frozenset(), 0), found.why
    shares = _shares(bench, [(update.factors[change.module], change.rows) for change in update.of_b], pairs)
    return Alone(update.round, pairs, max(space.rank for _, space in spaces), shares), found.why


def _shares(
    bench: Bench, seen: Sequence[tuple[Floats | None, Floats]], pairs: Pairs
) -> Mapping[tuple[int, int], float]:
    if not bench.dictionary.tells_places:
        return {}
    return pair_shares(bench.dictionary, seen, pairs=pairs, first=bench.first, iterations=bench.iterations)


def _lens(
    bench: Bench, module: str, space: Space, update: Shown, pair: tuple[Dictionary, Dictionary] | None
) -> list[Lens]:
    """Return the lens of one module's change of B; of ``pair`` of dictionary and decoy where that is given.

    Adding one vector to all keys of a text changes no attention, so the gradients of its keys sum to zero and
    the rows of a key's B span one direction less; the input of the opening token gives it back (and is no find).
    """
    if not 0 < space.rank < space.width:
        return [Lens(bench.dictionary, bench.decoy, space)]  # says why, and is not looked through
    factor = update.factors[module]
    dictionary, decoy = bench.behind(factor) if pair is None else (pair[0].through(factor), pair[1].through(factor))
    if _is_key(module):
        if bench.first is None:
            return []
        opening = bench.dictionary.inputs(np.array([bench.first]), np.array([0])) @ factor.T
        space = widened(space, opening)
    return [Lens(dictionary, decoy, space)]


def _is_key(module: str) -> bool:
    return module.rpartition(".")[2] in KEYS


def _pairs(pairs: Iterable[tuple[int, int]]) -> Pairs:
    return frozenset(pairs)


def _index(words: Ints, token: int | None) -> int | None:
    hits = [] if token is None else np.flatnonzero(words == token).tolist()
    return int(hits[0]) if hits else None
