"""Reconstruction of several texts of one update: words that the heads name, put where the gradients fit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._backdrop import Backdrop, Matched, make_backdrop
from ._dictionary import Dictionary, Floats, read_dictionary
from ._drafts import Drafted, Reader, few_texts, read_clients
from ._exchange import Exchange, Prior
from ._heads import heads_hidden, read_sides
from ._mixtures import Likely, descend_mixtures
from ._observed import Shown, evenly, first_modules
from ._powers import claimed_words, word_powers
from ._prior import SMALL, LanguageModel, causal_prior
from ._targets import factor_targets
from .attention_words import AttentionWordsConfig


class WordMatchingConfig(AttackConfig):
    """How long to search; the defaults take some three minutes of a core for four texts of MiniLM."""

    updates: int = Field(default=1, ge=1, le=1000, description="updates of a client that are read, evenly spread")
    texts: int | None = Field(
        default=None, ge=1, le=64, description="texts of an update; those drawn if absent, and none where over 4 are"
    )
    pool: int = Field(default=12_000, ge=100, le=1_000_000, description="(token, position) pairs in the first fit")
    words: int = Field(default=120, ge=10, le=10_000, description="words that mixtures are made of")
    starts: int = Field(default=3, ge=1, le=64, description="random starts of the descent on mixtures")
    steps: int = Field(default=100, ge=1, le=100_000, description="steps of each descent")
    rate: float = Field(default=0.1, gt=0, le=10, description="Adam's rate on the logits of the mixtures")
    rounds: int = Field(default=12, ge=0, le=10_000, description="rounds of exchanges of words, later ones of any word")
    tries: int = Field(default=24, ge=1, le=1000, description="words that are exchanged in a text in each round")
    moves: int = Field(default=60, ge=0, le=10_000, description="orders of a text looked at in every second round")
    prior: LanguageModel = SMALL


class WordMatching(Attack[WordMatchingConfig]):
    """Matches gradients over mixtures of the words that attention-words weighs, for updates of several texts.

    Tokens outnumber the rank, and the texts of an update cover each other. Powers of words by head and position
    (attention-words) say which words are likely where; every slot of every text is a mixture of them, and a descent
    raises the share of the update that the texts' gradients span, one unknown factor a text. Words are then exchanged
    one by one, at last by any of the vocabulary, and orders changed; a causal language model proposes some of both.
    Gradients and update are divided by the covariance of the gradients of random words, without which what all texts
    share hides what they say.

    An update is taken for one step from the broadcast; with several local steps that is a first-order approximation.
    It claims its best texts where a word stands out by attention-words' rule, and says how much they leave unexplained.
    Texts start as long as their closing tokens are likely where, and get longer or shorter in the exchange. Only
    classifiers.
    """

    name: ClassVar[str] = "word-matching"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = WordMatchingConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = (
        "after Balunovic et al., LAMP: Extracting Text from Gradients with Language Model Priors, NeurIPS 2022"
    )

    def blind(self, facts: PublicFacts) -> str | None:
        """Return what hides the heads, or that the loss of a language model cannot be written without its words."""
        if facts.objective != "classification":
            return "a language model's loss asks for the words themselves, which mixtures do not name"
        return heads_hidden(facts)

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return the best texts for the updates of every client outside the seat."""
        dictionary = read_dictionary(view.lab.model.encoder.get_base_model(), positions=view.facts.max_length)
        if dictionary is None or not dictionary.tells_places:
            return ReconstructionClaim((), note="the embeddings are not words plus positions under a LayerNorm")
        decoy = dictionary.decoy(rng.permutation(dictionary.words.shape[1]))
        return read_clients(view, lambda reader, client: self._client(reader, client, (dictionary, decoy), rng))

    def _client(
        self, reader: Reader, client: int, kinds: tuple[Dictionary, Dictionary], rng: np.random.Generator
    ) -> ClientTexts:
        texts = few_texts(reader.view.facts, client, asked=self.config.texts)
        if texts is None:
            return reader.passed(client)
        shown = [update for update in reader.shown(client) if update.of_b]
        picked = evenly(shown, self.config.updates)
        drafts = [draft for update in picked if (draft := self._draft(reader, update, texts, kinds, rng))]
        return reader.texts(client, drafts, silent="no word stands out" if shown else "no factor B moved")

    def _draft(
        self, reader: Reader, update: Shown, texts: int, kinds: tuple[Dictionary, Dictionary], rng: np.random.Generator
    ) -> Drafted | None:
        body = reader.mounted(update.round)
        modules = first_modules(reader.view.facts, width=kinds[0].words.shape[1])
        first = None if body.ends is None else body.ends[0]
        opening = None if first is None else kinds[0].inputs(np.array([first]), np.array([0]))[0]
        of_first = [change for change in update.of_b if change.module in modules]
        sides = read_sides(reader.view.lab, reader.state(update.round), of_first, opening=opening)
        if not sides:
            return None
        tokens, powers, decoys = word_powers(
            *kinds, sides, opening=first, pool=self.config.pool, words=self.config.words
        )
        law = AttentionWordsConfig()
        claimed = claimed_words(tokens, powers, decoys, above=law.above, share=law.share)
        if not np.isin(claimed, body.allowed).any():  # a closing token alone says nothing
            return None
        ends = np.zeros(powers.shape[1]) if body.ends is None else powers[tokens == body.ends[1]].sum(0)
        lengths = [likely_lengths(ends, texts=texts, rng=rng) for _ in range(self.config.starts)]
        longest = len(ends) - 1
        backdrop = make_backdrop(body, factor_targets(update), lengths=[n for each in lengths for n in each], rng=rng)
        some = np.isin(tokens, body.allowed)
        prior = causal_prior(self.config.prior, reader.view.lab.tokenizer)
        return self._search(backdrop, Likely(tokens[some], powers[some, :longest]), lengths, prior, rng)

    def _search(
        self,
        backdrop: Backdrop,
        likely: Likely,
        lengths: list[list[int]],
        prior: Prior | None,
        rng: np.random.Generator,
    ) -> Drafted:
        config, longest = self.config, likely.powers.shape[1]
        ends = descend_mixtures(backdrop, likely, lengths, steps=config.steps, rate=config.rate, rng=rng)
        searches = [Exchange(Matched(backdrop, texts), longest, prior) for texts in ends]
        best = max(searches, key=lambda search: search.share)
        near, every = torch.from_numpy(likely.tokens), torch.from_numpy(backdrop.body.allowed)
        rounds = [near] * (config.rounds - config.rounds // 2) + [every] * (config.rounds // 2)
        best.run(rounds, tries=config.tries, moves=config.moves, rng=rng)
        return Drafted(best.texts, 1 - best.share)


def likely_lengths(ends: Floats, *, texts: int, rng: np.random.Generator) -> list[int]:
    """Return the slots of each of ``texts`` by the powers ``ends`` (M - 1,) of closing tokens at each position.

    Drawn from each of as many equal parts of the powers; as long as can be where no closing token has any power.
    """
    if not ends.sum():
        return [max(1, len(ends) - 1)] * texts
    below = np.cumsum(ends) / ends.sum()  # an end at position i + 1, index i, closes a text of i slots
    parts = (np.arange(texts) + rng.random(texts)) / texts
    return [max(1, int(i)) for i in np.searchsorted(below, parts)]
