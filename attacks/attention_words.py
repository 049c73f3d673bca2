"""Reconstruction of words from the second moments of keys and queries, where tokens outnumber a head's directions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._dictionary import Dictionary, read_dictionary
from ._heads import heads_hidden, read_sides
from ._observed import Shown, client_shows, evenly, first_modules
from ._powers import claimed_words, word_powers
from ._reading import Reading
from ._spelling import client_texts


class AttentionWordsConfig(AttackConfig):
    """What the fit looks at, and how sure it has to be."""

    updates: int = Field(default=1, ge=1, le=10_000, description="updates of a client that are read, evenly spread")
    pool: int = Field(default=4_000, ge=100, le=1_000_000, description="(token, position) pairs in the first fit")
    words: int = Field(default=150, ge=10, le=10_000, description="words in the second fit")
    above: float = Field(
        default=2.0, ge=1, le=1e6, description="a word is claimed above so many times the best decoy's power"
    )
    share: float = Field(default=5e-4, gt=0, lt=1, description="and above this share of all power")
    max_positions: int | None = Field(
        default=None, ge=1, le=4096, description="positions looked at; the task's text length if absent"
    )


class AttentionWords(Attack[AttentionWordsConfig]):
    """Reads words through frozen A from updates of several texts, where attention-span has no room left.

    Columns of dB of a head are combinations of the texts' keys (query module) and queries (key module), public in the
    first layer. With more tokens than a head is wide they span everything, but their covariance over many heads still
    tells which words it is made of. No order and no texts: words alone, as many as stand out from decoys, words that
    no one wrote and that compete in the same fit. Found here; we know of no publication.
    """

    name: ClassVar[str] = "attention-words"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = AttentionWordsConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = "none known; powers by sparse Bayesian learning, Wipf and Rao, 2007"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that an adaptive optimizer hides the moments, or that no query or key is adapted."""
        return heads_hidden(facts)

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return for every client outside the seat the words that its updates are made of."""
        encoder = view.lab.model.encoder.get_base_model()
        dictionary = read_dictionary(encoder, positions=self.config.max_positions or view.facts.max_length)
        if dictionary is None or not dictionary.tells_places:
            return ReconstructionClaim((), note="the embeddings are not words plus positions under a LayerNorm")
        modules = first_modules(view.facts, width=dictionary.words.shape[1])
        decoy = dictionary.decoy(rng.permutation(dictionary.words.shape[1]))
        clients = range(view.colluders, view.facts.clients)
        read = [(client, self._read(view, client, modules, (dictionary, decoy))) for client in clients]
        return ReconstructionClaim(tuple(client_texts(client, reading, view.lab.tokenizer) for client, reading in read))

    def _read(self, view: View, client: int, modules: list[str], kinds: tuple[Dictionary, Dictionary]) -> Reading:
        seen = [shown for shown in client_shows(view, client, modules=modules) if shown.of_b]
        if not seen:
            return Reading(note="no factor B of layer 0 moved")
        picked = evenly(seen, self.config.updates)
        said = [self._words(view, shown, kinds) for shown in picked]
        words = frozenset[int]().union(*said)
        return Reading(words, note=f"{len(words)} words stand out in {len(picked)} of {len(seen)} updates")

    def _words(self, view: View, shown: Shown, kinds: tuple[Dictionary, Dictionary]) -> frozenset[int]:
        held = next(message.state for message in view.broadcasts if message.round == shown.round)
        first = getattr(view.lab.tokenizer, "cls_token_id", None)
        opening = None if first is None else kinds[0].inputs(np.array([first]), np.array([0]))[0]
        sides = read_sides(view.lab, held, shown.of_b, opening=opening)
        if not sides:
            return frozenset()
        dictionary, decoy = kinds
        tokens, powers, decoys = word_powers(
            dictionary, decoy, sides, opening=first, pool=self.config.pool, words=self.config.words
        )
        claimed = claimed_words(tokens, powers, decoys, above=self.config.above, share=self.config.share)
        return frozenset(claimed.tolist())
