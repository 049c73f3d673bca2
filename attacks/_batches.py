"""The texts of a client as its rounds show them together: rosters, a first draft of each text, and a joint descent.

In a round with known partners the second layer's rows of dA are combinations of the inputs that the batch's texts have
there, each of which depends on its whole text. A wrong word in any of them leaves a residual that falls with every
word that is put right, so that a descent from a draft ends at the texts.
Shapes: N rows of a round, d width, n sentences, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from qlorabench.threats.view import View

from ._assembly import Search
from ._dictionary import Dictionary, Floats, Ints
from ._forward import Sentence, layer_inputs
from ._observed import client_shows, layer_modules
from ._rosters import Flags, Seating, Shares, find_rosters, read_shares, seat_words

_LOOK = 2
"""Rounds that a text is fitted to at once; one at first."""
_NEAR = 6
"""Words tried at a position at first, of those that are not much less like it than the best one."""
_MARGIN = 0.35
_SURE = 0.7
"""Own words that are less like any position than this are left out of a draft."""
_PASSES = 8
_FEWEST = 4
"""Rounds below which words that come and go together do so by chance."""
_CALM = 3.0
"""Times the residual that noise leaves, below which the texts of a round are taken to be right."""


@dataclass(frozen=True)
class Draft:
    """A text as far as it is known, and what else may stand in it."""

    roster: Flags
    seating: Seating
    tokens: Ints
    """Token id of each word of the seating."""
    sentence: Sentence


@dataclass(frozen=True)
class Fit:
    """How well texts that make up the batch of a round explain its rows at the second layer."""

    view: View
    module: str
    """Whose inputs the rows combine."""
    states: Sequence[Mapping[str, Tensor]]
    """What clients started each round from."""
    rows: Sequence[Floats]
    """Rows of dA of layer 1 by round, each of unit length, (N, d)."""
    _seen: dict[tuple[int, Sentence], Floats] = field(default_factory=dict, repr=False)

    def squares(self, round: int, others: Sequence[Sentence], sentences: Sequence[Sentence]) -> Floats:
        """Return the mean square of what ``others`` and each of ``sentences`` leave of the rows of a round, (n,)."""
        known = [self._inputs(round, [sentence])[0] for sentence in others]
        rows = self.rows[round]
        basis = np.linalg.qr(np.vstack(known).T)[0] if known else np.zeros((rows.shape[1], 0))
        left = rows - (rows @ basis) @ basis.T
        squares: Floats = np.empty(len(sentences))
        inputs = self._inputs(round, sentences)
        for length in sorted({len(sentence) for sentence in sentences}):
            which = [i for i, sentence in enumerate(sentences) if len(sentence) == length]
            stacked = np.stack([inputs[i] for i in which])
            free = torch.from_numpy(stacked - (stacked @ basis) @ basis.T)
            directions = torch.linalg.qr(free.transpose(1, 2))[0].numpy()
            inside = ((left @ directions) ** 2).sum((1, 2))
            squares[which] = np.clip((left**2).sum() - inside, 0, None) / len(rows)
        return squares

    def _inputs(self, round: int, sentences: Sequence[Sentence]) -> list[Floats]:
        """Return the second layer's inputs of every sentence in a round, (T, d) each; of single ones from memory."""
        new = [sentence for sentence in sentences if (round, sentence) not in self._seen]
        found: dict[Sentence, Floats] = {}
        if new:
            self.view.lab.mount(self.states[round])
            read = layer_inputs(self.view.lab.model, self.module, new)
            found = {sentence: inputs.astype(np.float64) for sentence, inputs in zip(new, read, strict=True)}
            if len(sentences) == 1:
                self._seen[round, sentences[0]] = found[sentences[0]]
        return [found[s] if s in found else self._seen[round, s] for s in sentences]


@dataclass
class Batches:
    """All texts of a client, fitted to the rounds that they took part in."""

    fit: Fit
    floors: Floats
    """What noise is of the rows of each round, root mean square, (T,)."""
    drafts: list[Draft]
    ends: tuple[int, int]
    share: float
    """A text is claimed below this share of its best near miss's residual."""
    words: int
    """Size of the vocabulary."""
    rng: Generator
    budget: int
    """About how many sentences are scored, each in one round, before texts are left as they are."""
    spent: int = 0

    def settle(self) -> None:
        """Descend until no text changes, with the likeliest words first and then with all of them and exchanges."""
        for patient in (False, True):
            for _ in range(_PASSES):
                before = [draft.sentence for draft in self.drafts]
                for number in self._worst_first():
                    self._improve(number, patient=patient)
                if before == [draft.sentence for draft in self.drafts]:
                    break

    def claimed(self) -> list[Sentence]:
        """Return the texts that fit some round much better than near misses of theirs do."""
        return [draft.sentence for number, draft in enumerate(self.drafts) if self._claims(number)]

    def _worst_first(self) -> list[int]:
        fits = [self._score(i, [draft.sentence], self._rounds(i)[:_LOOK]) for i, draft in enumerate(self.drafts)]
        order: list[int] = np.argsort([float(fit[0]) for fit in fits], kind="stable")[::-1].tolist()
        return order

    def _rounds(self, number: int) -> list[int]:
        """Return the rounds of a text, first those that fit best as it is: its partners there are nearest the truth."""
        rounds: list[int] = np.flatnonzero(self.drafts[number].roster).tolist()
        fits = [float(self._score(number, [self.drafts[number].sentence], [t])[0]) for t in rounds]
        return [rounds[i] for i in np.argsort(fits, kind="stable")]

    def _improve(self, number: int, *, patient: bool) -> None:
        draft = self.drafts[number]
        rounds = self._rounds(number)[: _LOOK if patient else 1]
        floor = _CALM * float(np.sqrt(np.mean(self.floors[rounds] ** 2)))
        if self.spent > self.budget or float(self._score(number, [draft.sentence], rounds)[0]) < floor:
            return
        longest = len(draft.seating.distances)
        tries = [draft.sentence, *(self._of_length(draft, length) for length in range(3, longest + 1))]
        start = tries[int(self._score(number, tries, rounds).argmin())]
        sentence, score = self._descend(draft, start, number, rounds, patient)
        if patient and score > floor:
            turned = [sentence, *_turns(sentence)]
            best = turned[int(self._score(number, turned, rounds).argmin())]
            if best != sentence:
                sentence, _ = self._descend(draft, best, number, rounds, patient)
        self.drafts[number] = replace(draft, sentence=sentence)

    def _descend(
        self, draft: Draft, start: Sentence, number: int, rounds: Sequence[int], patient: bool
    ) -> tuple[Sentence, float]:
        inner = [self._options(draft, i, start[i], patient) for i in range(1, len(start) - 1)]
        return self._search(number, rounds).descend([[self.ends[0]], *inner, [self.ends[1]]], start)

    def _search(self, number: int, rounds: Sequence[int]) -> Search:
        def score(sentences: Sequence[Sentence]) -> Floats:
            return self._score(number, sentences, rounds)

        return Search(score, *self.ends, self.share, self.words, tries=1, budget=1, rng=self.rng)

    def _claims(self, number: int) -> bool:
        sentence = self.drafts[number].sentence
        round = self._rounds(number)[0]
        return self._search(number, [round]).claims(sentence, float(self._score(number, [sentence], [round])[0]))

    def _options(self, draft: Draft, place: int, now: int, patient: bool) -> list[int]:
        """Return the words to try at a place, the present one among them."""
        distances = np.where(np.isin(draft.tokens, self.ends), np.inf, draft.seating.distances[place])
        order = np.argsort(distances, kind="stable")
        near = order[np.isfinite(distances[order])]
        if not patient:
            near = near[distances[near] < distances[near[0]] + _MARGIN][:_NEAR]
        return list(dict.fromkeys([now, *map(int, draft.tokens[near])]))

    def _of_length(self, draft: Draft, length: int) -> Sentence:
        """Return the sentence of a draft cut, or drawn out by the likeliest words."""
        inner = draft.sentence[: min(length, len(draft.sentence)) - 1]
        more = [self._options(draft, i, -1, False)[1] for i in range(len(inner), length - 1)]
        return (*inner, *more, self.ends[1])

    def _score(self, number: int, sentences: Sequence[Sentence], rounds: Sequence[int]) -> Floats:
        """Return the root mean square residual of the rows of ``rounds`` with each of ``sentences``, (n,)."""
        self.spent += len(sentences) * len(rounds)
        squares = [self._squares(number, sentences, t) for t in rounds]
        root: Floats = np.sqrt(np.mean(squares, axis=0))
        return root

    def _squares(self, number: int, sentences: Sequence[Sentence], round: int) -> Floats:
        others = [d.sentence for i, d in enumerate(self.drafts) if d.roster[round] and i != number]
        return self.fit.squares(round, others, sentences)


def _turns(sentence: Sentence) -> Iterator[Sentence]:
    """Yield ``sentence`` with two words exchanged, or one moved to another place; the ends stay."""
    inner = range(1, len(sentence) - 1)
    for i, j in combinations(inner, 2):
        between = sentence[i + 1 : j]
        yield (*sentence[:i], sentence[j], *between, sentence[i], *sentence[j + 1 :])
        if between:
            yield (*sentence[:i], *between, sentence[j], sentence[i], *sentence[j + 1 :])
            yield (*sentence[:i], sentence[j], sentence[i], *between, *sentence[j + 1 :])


def draft_texts(shares: Shares, rosters: Flags, *, ends: tuple[int, int]) -> list[Draft]:
    """Return a draft of every text: at each position the word that is most like it, own words once at most."""
    return [
        _draft(shares, roster, seating, ends)
        for roster, seating in zip(rosters, seat_words(shares, rosters), strict=True)
    ]


def _draft(shares: Shares, roster: Flags, seating: Seating, ends: tuple[int, int]) -> Draft:
    from scipy.optimize import linear_sum_assignment

    tokens = shares.tokens[seating.words]
    reach = np.flatnonzero(shares.occupied[roster].all(0))
    longest = max(3, int(reach.max(initial=0)) + 1)
    distances = seating.distances[1 : longest - 1]
    inner = ~np.isin(tokens, ends)
    sentence = np.where(inner, distances, np.inf).argmin(1)
    own = np.flatnonzero(seating.own & inner)
    if len(own):
        rows, columns = linear_sum_assignment(distances[:, own])
        sure = distances[rows, own[columns]] < _SURE
        free = np.where(inner & ~seating.own, distances, np.inf)
        if np.isfinite(free).any():
            sentence = free.argmin(1)
        sentence[rows[sure]] = own[columns[sure]]
    return Draft(roster, seating, tokens, (ends[0], *tokens[sentence].tolist(), ends[1]))


def read_batches(
    view: View,
    dictionary: Dictionary,
    *,
    client: int,
    tokens: Ints,
    share: float,
    false_alarm: float,
    budget: int,
    rng: Generator,
) -> Batches | None:
    """Return drafts of all texts of ``client``, whose words are ``tokens`` (n,); ``None`` where they stay one heap.

    That is where every text is in every update, or where no words are known, or where texts have no fixed ends.
    """
    facts, tokenizer = view.facts, view.lab.tokenizer
    ends = (_token(tokenizer, "cls"), _token(tokenizer, "sep"))
    batch = facts.schedule.batch(client) * facts.training.local_steps
    if batch >= facts.client_rows[client] or not np.isin(ends, tokens).all():
        return None
    width = dictionary.places.shape[1]
    modules = [layer_modules(facts, layer, width=width) for layer in (0, 1)]
    shown = zip(*(client_shows(view, client, modules=layer) for layer in modules), strict=True)
    both = [(a, b) for a, b in shown if a.of_a and b.of_a]
    if len(both) < _FEWEST:
        return None
    rows = [[np.vstack([change.rows for change in update.of_a]) for update in pair] for pair in both]
    shares = read_shares(dictionary, [first for first, _ in rows], tokens=tokens, false_alarm=false_alarm)
    rosters = find_rosters(shares.present, batch=batch, texts=facts.client_rows[client])
    if not len(rosters):
        return None
    held = {message.round: message.state for message in view.broadcasts}
    states = [held[a.round] for a, _ in both]
    lengths = [np.linalg.norm(second, axis=1, keepdims=True) for _, second in rows]
    unit = [second / length for (_, second), length in zip(rows, lengths, strict=True)]
    floors = np.sqrt([np.mean(width / length**2) for length in lengths])
    drafts = draft_texts(shares, rosters, ends=ends)
    fit = Fit(view, modules[1][0], states, unit)
    return Batches(fit, floors, drafts, ends, share, len(dictionary.words), rng, budget)


def _token(tokenizer: Any, name: str) -> int:
    """Return the id of a special token, -1 where there is none."""
    found = getattr(tokenizer, f"{name}_token_id", None)
    return -1 if found is None else int(found)
