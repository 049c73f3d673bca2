"""What a client's updates give away, read in the way that suits what travels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ._dictionary import Dictionary, Floats, Ints
from ._evidence import COMPLETE, Law, Lens, find_pairs, find_projected_pairs, find_words
from ._observed import KEYS, Change
from ._places import find_places, marginals
from ._subspace import Space, row_space, unexplained, widened

Pairs = frozenset[tuple[int, int]]
"""(token id, position) pairs."""


@dataclass(frozen=True)
class Reading:
    """Words of one client, where they stood, and what stood together in one update."""

    words: frozenset[int] = frozenset()
    places: Pairs = frozenset()
    updates: tuple[Pairs, ...] = ()
    """The pairs of each update that could be read alone."""
    note: str = ""


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


def read_trained(bench: Bench, updates: list[list[Change]]) -> Reading:
    """Read the changes of a trained A: words from the rows of all updates, pairs from each update alone."""
    if not updates:
        return Reading(note="A did not move")
    rows = np.vstack([change.rows for update in updates for change in update])
    space = row_space(rows)
    found = find_words(bench.dictionary, space, decoy=bench.decoy, law=bench.law)
    alone = tuple(pairs for update in updates if (pairs := _pairs_alone(bench, update, found.items)))
    exact = frozenset[tuple[int, int]]().union(*alone)
    words = frozenset(int(word) for word in found.items) | {token for token, _ in exact}
    note = found.why or f"{len(found.items)} tokens in {space.rank} dimensions"
    if alone:
        note += f"; {len(alone)} of {len(updates)} updates spelled out alone"
    if words == {token for token, _ in exact}:
        return Reading(words, exact, alone, note)
    known = np.vstack([bench.dictionary.words[found.items], bench.dictionary.places, bench.dictionary.shift])
    if unexplained(space, known) > COMPLETE:
        return Reading(words, exact, alone, f"{note}; words are missing, so no places follow")
    return Reading(words, exact | _fitted(bench, space, rows, found.items), alone, note)


def _fitted(bench: Bench, space: Space, rows: Floats, words: Ints) -> Pairs:
    """Return where the words stood by the marginals of all rows."""
    seen = marginals(bench.dictionary, space, rows=rows, words=words)
    first = _index(words, bench.first)
    placed = find_places(seen, first=first, iterations=bench.iterations, score=bench.score)
    return _pairs((int(words[word]), int(place)) for word, place in placed)


def _pairs_alone(bench: Bench, update: list[Change], words: Ints) -> Pairs:
    """Return the pairs of one update, among the words of all updates where there are any."""
    space = row_space(np.vstack([change.rows for change in update]))
    tokens = words if len(words) else np.arange(len(bench.dictionary.words))
    some = len(words) > 0
    dictionary = bench.dictionary.only(tokens) if some else bench.dictionary
    decoy = bench.decoy.only(tokens) if some else bench.decoy
    found = find_pairs(dictionary, space, decoy=decoy, law=bench.law)
    return _pairs((int(tokens[word]), int(place)) for word, place in found.items)


def read_frozen(bench: Bench, updates: list[list[Change]], *, factors: Mapping[str, Floats]) -> Reading:
    """Read the changes of B under frozen A, (rank, d) by module: each update alone, for all lie in one R^rank."""
    if not updates:
        return Reading(note="B did not move")
    behind = {module: (bench.dictionary.through(a), bench.decoy.through(a)) for module, a in factors.items()}
    rate = bench.law.false_alarm / len(updates)
    found = [find_projected_pairs(_lenses(bench, u, behind), false_alarm=rate) for u in updates]
    pairs = [_pairs((int(token), int(place)) for token, place in f.items) for f in found]
    alone = tuple(p for p in pairs if any(pair != (bench.first, 0) for pair in p))
    places = frozenset[tuple[int, int]]().union(*alone)
    said = [f"{len(alone)} of {len(updates)} updates read", *sorted({f.why for f in found if f.why})]
    return Reading(frozenset(token for token, _ in places), places, alone, "; ".join(said))


def _lenses(bench: Bench, update: list[Change], behind: Mapping[str, tuple[Dictionary, Dictionary]]) -> list[Lens]:
    """Return the lens of every module with the space of its change.

    Adding one vector to all keys of a text changes no attention, so the gradients of its keys sum to zero and
    the rows of a key's B span one direction less; the input of the opening token gives it back (and is no find).
    """
    lenses = []
    for change in update:
        dictionary, decoy = behind[change.module]
        space = row_space(change.rows)
        if change.module.rpartition(".")[2] in KEYS and 0 < space.rank < space.width:
            if bench.first is None:
                continue
            space = widened(space, dictionary.inputs(np.array([bench.first]), np.array([0])))
        lenses.append(Lens(dictionary, decoy, space))
    return lenses


def _pairs(pairs: Iterable[tuple[int, int]]) -> Pairs:
    return frozenset(pairs)


def _index(words: Ints, token: int | None) -> int | None:
    hits = [] if token is None else np.flatnonzero(words == token).tolist()
    return int(hits[0]) if hits else None
