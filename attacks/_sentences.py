"""Whole sentences from what an update shows of the second layer, in the way that suits the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qlorabench.threats.view import View

from ._assembly import Search
from ._dictionary import Floats
from ._forward import Sentence, branch_inputs, layer_inputs
from ._glass import Glass, distance, update_glasses
from ._observed import Shown, client_shows, layer_modules
from ._prefixes import Growth
from ._reading import Alone, Reading

_BEAM = 32


@dataclass(frozen=True)
class Composer:
    """What sentences are composed with."""

    view: View
    width: int
    words: int
    """Size of the vocabulary."""
    longest: int
    """Most tokens of a text."""
    share: float
    """A sentence is claimed below this share of its best decoy's residual."""
    tries: int
    budget: int
    """About how many sentences are scored for a client before the search gives up."""
    rng: np.random.Generator

    def compose(self, client: int, reading: Reading) -> Reading:
        """Return ``reading`` with the sentences of ``client`` that its updates show whole, each once.

        Pairs of an update whose sentences say all of its words are cut down to those of the sentences.
        """
        modules = layer_modules(self.view.facts, 1, width=self.width)
        shows = {shown.round: shown for shown in client_shows(self.view, client, modules=modules)}
        found: dict[Sentence, None] = {}
        updates, left = [], self.budget
        for update in reading.alone:
            new, spent = self._read(update, shows[update.round], modules[0], tuple(found), left) if modules else ((), 0)
            left -= spent
            found |= dict.fromkeys(new)
            said = frozenset((token, i) for sentence in new for i, token in enumerate(sentence))
            whole = {token for token, _ in said} == {token for token, _ in update.pairs}
            updates.append(said if whole else update.pairs)
        if not found:
            return reading
        cut = frozenset().union(*reading.updates) - frozenset().union(*updates)
        return replace(reading, updates=tuple(updates), places=reading.places - cut, sentences=tuple(found))

    def _read(
        self, update: Alone, shown: Shown, module: str, known: Sequence[Sentence], budget: int
    ) -> tuple[tuple[Sentence, ...], int]:
        """Return the sentences of one update, and how many were scored."""
        glasses = update_glasses(shown)
        if not glasses:
            return (), 0
        self.view.lab.mount(next(b.state for b in self.view.broadcasts if b.round == update.round))
        if getattr(self.view.facts, "objective", "classification") == "language-modeling":
            return self._grow(sorted({token for token, _ in update.pairs}), glasses, module), 0
        tokenizer = self.view.lab.tokenizer
        ends = (getattr(tokenizer, "cls_token_id", None), getattr(tokenizer, "sep_token_id", None))
        if ends[0] is None or ends[1] is None:
            return (), 0
        search = self._search(glasses, module, (int(ends[0]), int(ends[1])), budget)
        found = search.sentences(update.pairs, inputs=update.inputs, known=known, shares=update.shares)
        return found, search.spent

    def _search(self, glasses: Sequence[Glass], module: str, ends: tuple[int, int], budget: int) -> Search:
        def score(sentences: Sequence[Sentence]) -> Floats:
            squares = distance(glasses, np.vstack(layer_inputs(self.view.lab.model, module, sentences))) ** 2
            starts = np.cumsum([0] + [len(sentence) for sentence in sentences[:-1]])
            sums: Floats = np.add.reduceat(squares, starts)
            return np.sqrt(sums / [len(sentence) for sentence in sentences])

        return Search(score, *ends, self.share, self.words, self.tries, budget, self.rng)

    def _grow(self, tokens: list[int], glasses: Sequence[Glass], module: str) -> tuple[Sentence, ...]:
        def score(prefix: Sentence, words: Sequence[int]) -> Floats:
            return distance(glasses, branch_inputs(self.view.lab.model, module, prefix, words))

        first = self.view.lab.tokenizer.bos_token_id
        start = () if first is None else (int(first),)
        return Growth(score, start, self.share, _BEAM, self.longest, self.words, self.rng).sentences(tokens)
