"""Reconstruction by gradient matching: texts whose gradients are closest to one update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._backdrop import Backdrop, Matched, Spanned, make_backdrop
from ._drafts import Drafted, Reader, few_texts, read_clients
from ._exchange import Exchange, Prior
from ._mixtures import Likely, descend_mixtures
from ._observed import Shown, evenly
from ._prior import SMALL, LanguageModel, causal_prior
from ._relaxed import Body, descend, draw
from ._targets import observed_targets

_LENGTHS = (0.5, 0.7)
"""Shares of the longest text that are tried where the length is not known."""
_RATE = 0.1
"""Adam's, on the logits of mixtures."""
_SHARP, _BLEND = 10.0, 0.3
"""How sharply a slot's cosine with a word makes it likely there, and how likely it is where another slot is near it."""
_KEPT = 2
"""Random starts that go on after the probe."""
_SHAKEN, _OPENED = 0.5, 2
"""Noise that words get, in standard deviations of the embeddings, and slots that open between them, at most."""


class GradientMatchingConfig(AttackConfig):
    """How long to search; the defaults take over two minutes of a core for one text of MiniLM."""

    updates: int = Field(default=1, ge=1, le=1000, description="updates of a client that are read, the first one on")
    length: int | None = Field(
        default=None, ge=3, le=512, description="tokens of a text, special ones included; a few are tried if absent"
    )
    texts: int | None = Field(
        default=None, ge=1, le=64, description="texts of an update; those drawn if absent, and none where over 4 are"
    )
    starts: int = Field(default=8, ge=1, le=64, description="random starts of the descent on free embeddings")
    probe: int = Field(default=30, ge=1, le=100_000, description="steps after which the two best starts alone go on")
    steps: int = Field(default=80, ge=1, le=100_000, description="steps of each descent from there on")
    rate: float = Field(default=0.2, gt=0, le=100, description="Adam's rate, in standard deviations of the embeddings")
    penalty: float = Field(default=0.3, ge=0, le=100, description="weight of the usual length of a word's embedding")
    words: int = Field(default=200, ge=10, le=100_000, description="words near the free embeddings, for mixtures")
    cycles: int = Field(default=4, ge=1, le=1000, description="times that descent and search over words alternate")
    rounds: int = Field(default=20, ge=0, le=100_000, description="rounds of the search over whole words in each")
    tries: int = Field(default=24, ge=1, le=1000, description="words that are exchanged in a text in each round")
    moves: int = Field(default=50, ge=0, le=10_000, description="orders of a text looked at in every second round")
    prior: LanguageModel = SMALL


class GradientMatching(Attack[GradientMatchingConfig]):
    """Searches for texts whose gradients span an update, after LAMP; reads through frozen A.

    Free embeddings descend (Adam) on the share of the update that the gradients of the texts leave unexplained. The
    words near them make mixtures, one a slot, which descend on the same; and a search over exchanges, insertions,
    deletions and other orders of words goes on from the best of those. What it ends at is shaken, gets open slots
    and descends again, as long as the budget lasts.

    - Gradients and update are divided by the covariance of the gradients of random words, with the known noise of codec
      and DP-SGD on top of it: what all texts share would hide what they say.
    - Every factor that trains is matched, and a shared head's weights. Labels need not be known: how strongly a text
      pulls is one unknown factor a text (for each class but one).
    - An update is taken for one step from the broadcast. With several local steps that is a first-order approximation,
      worse the larger the rate; with AdamW the gradients' signs are matched, which is cruder.
    - Texts of one update start with equally many tokens; insertions and deletions correct that.

    A causal language model proposes words and orders, after the paper; here it chooses what is looked at, and the
    update alone decides. The paper matches plain gradients by cosine or L2 + L1, with labels given. The distance in
    the note is what the search reached, not a test: it claims its best draft whenever the update stands out of its
    known noise. Only classifiers.
    """

    name: ClassVar[str] = "gradient-matching"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = GradientMatchingConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = (
        "Balunovic et al., LAMP: Extracting Text from Gradients with Language Model Priors, NeurIPS 2022"
    )

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that the loss of a language model cannot be written without its words."""
        if facts.objective != "classification":
            return "a language model's loss asks for the words themselves, which free embeddings do not name"
        return None

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return the best drafts for the updates of every client outside the seat."""
        return read_clients(view, lambda reader, client: self._client(reader, client, rng))

    def _client(self, reader: Reader, client: int, rng: np.random.Generator) -> ClientTexts:
        texts = few_texts(reader.view.facts, client, asked=self.config.texts)
        if texts is None:
            return reader.passed(client)
        shown = [update for update in reader.shown(client) if update.of_a or update.of_b]
        picked = evenly(shown, self.config.updates)
        drafts = [draft for update in picked if (draft := self._draft(reader, client, update, texts, rng))]
        return reader.texts(client, drafts, silent="nothing above the noise" if shown else "no factor moved")

    def _draft(
        self, reader: Reader, client: int, update: Shown, texts: int, rng: np.random.Generator
    ) -> Drafted | None:
        body, facts, config = reader.mounted(update.round), reader.view.facts, self.config
        targets = observed_targets(reader.view, client, update)
        if not targets:
            return None
        longest = facts.max_length - 2 * body.opened
        free = self._drawn(body, texts, self._slots(facts, longest), rng)
        signs = facts.training.optimizer.kind == "adamw"
        every = [n for each in free.lengths for n in each]
        backdrop = make_backdrop(body, targets, lengths=every, rng=rng, signs=signs)
        free = self._descended(backdrop, self._descended(backdrop, free, config.probe, kept=_KEPT), config.steps)
        prior = causal_prior(config.prior, reader.view.lab.tokenizer)
        best = self._in_words(backdrop, free, longest, prior, rng)
        for _ in range(config.cycles - 1):
            if best.complete:
                break
            free = self._descended(backdrop, shaken(body, best.texts, longest, rng), config.steps)
            best = max(best, self._in_words(backdrop, free, longest, prior, rng), key=lambda search: search.share)
        return Drafted(best.texts, 1 - best.share)

    def _slots(self, facts: PublicFacts, longest: int) -> list[int]:
        """Return the numbers of slots that are tried."""
        if self.config.length is not None:
            return [max(1, longest - facts.max_length + min(self.config.length, facts.max_length))]
        return sorted({max(1, round(share * longest)) for share in _LENGTHS})

    def _drawn(self, body: Body, texts: int, slots: list[int], rng: np.random.Generator) -> Free:
        lengths = [[slots[start % len(slots)]] * texts for start in range(self.config.starts)]
        return Free(draw(body, (len(lengths), texts, max(slots)), rng), lengths)

    def _descended(self, backdrop: Backdrop, free: Free, steps: int, *, kept: int = 1) -> Free:
        """Return the ``kept`` candidates that explain most after a descent."""
        objective, config = Spanned(backdrop, free.lengths), self.config
        slots = descend(backdrop.body, objective, free.slots, steps=steps, rate=config.rate, penalty=config.penalty)
        order = objective.distance(slots, progress=1.0).detach().argsort()[:kept].tolist()
        return Free(slots[order], [free.lengths[i] for i in order])

    def _in_words(
        self, backdrop: Backdrop, free: Free, longest: int, prior: Prior | None, rng: np.random.Generator
    ) -> Exchange:
        """Return the texts that are found near the first of ``free``."""
        config, likely = self.config, near_words(backdrop.body, free, words=self.config.words, longest=longest)
        starts = [[max(1, slots - fewer) for slots in free.lengths[0]] for fewer in range(_OPENED + 1)]
        ends = descend_mixtures(backdrop, likely, starts, steps=config.steps, rate=_RATE, rng=rng)
        searches = [Exchange(Matched(backdrop, texts), longest, prior) for texts in ends]
        best = max(searches, key=lambda search: search.share)
        kinds = torch.from_numpy(likely.tokens), torch.from_numpy(backdrop.body.allowed)
        rounds = [kinds[min(round % 3, 1)] for round in range(config.rounds)]
        best.run(rounds, tries=config.tries, moves=config.moves, rng=rng)
        return best


@dataclass(frozen=True)
class Free:
    """Free embeddings of candidate texts."""

    slots: Tensor
    """(C, N, S, d)"""
    lengths: list[list[int]]
    """Slots that count, (C, N)."""


def shaken(body: Body, texts: list[list[int]], longest: int, rng: np.random.Generator) -> Free:
    """Return the embeddings of ``texts``, (4, N, S, d): with noise, and with slots that open at random places."""
    lengths = [min(longest, len(text) + _OPENED) for text in texts]
    slots = draw(body, (4, len(texts), max(lengths)), rng)
    size = float(body.words.std())
    for candidate in slots:
        for row, text, length in zip(candidate, texts, lengths, strict=True):
            places = np.sort(rng.permutation(length)[: len(text)])
            noise = torch.from_numpy(rng.normal(size=(len(text), row.shape[1]))).float()
            row[places] = body.embed(torch.tensor(text)) + _SHAKEN * size * noise
    return Free(slots, [lengths] * len(slots))


def near_words(body: Body, free: Free, *, words: int, longest: int) -> Likely:
    """Return the ``words`` nearest to an embedding of the first candidate, and at which of ``longest`` slots.

    Slots without an embedding take any of these words as the others do on average.
    """
    allowed, mean = torch.from_numpy(body.allowed), body.words.mean(0)
    slots = torch.cat([row[:length] for row, length in zip(free.slots[0], free.lengths[0], strict=True)])
    places = torch.cat([torch.arange(length) for length in free.lengths[0]])
    known = torch.nn.functional.normalize(body.words[allowed] - mean, dim=1)
    cosines = torch.nn.functional.normalize(slots - mean, dim=1) @ known.T
    top = cosines.max(0).values.topk(min(words, len(allowed))).indices
    near = torch.softmax(_SHARP * cosines[:, top], dim=1)
    powers = near.mean(0).repeat(longest, 1)
    powers[: max(free.lengths[0])] = 0
    powers.index_add_(0, places, near)
    return Likely(allowed[top].numpy(), powers.T.double().numpy(), blend=_BLEND)
