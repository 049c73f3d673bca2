"""Reconstruction of whole texts from the keys and queries that a single update of B spans, frozen A or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._backdrop import Matched, make_backdrop
from ._dictionary import Dictionary, read_dictionary
from ._drafts import Reader
from ._exchange import Exchange
from ._heads import heads_hidden, read_sides
from ._observed import Change, client_shows, evenly, first_modules
from ._places import Pairs
from ._prior import SMALL, LanguageModel, causal_prior
from ._pursuit import Pursuit, remainders
from ._reading import Reading
from ._relaxed import make_body
from ._spelling import client_texts, spells
from ._targets import factor_targets

_SHORTEST = 4
"""Tokens that a text has at least: its ends and two words."""
_SPANNED = 0.5
"""Share of an update beyond which a text is claimed whose words were found at other places."""
_PATIENCE = 2
"""Updates without an explanation after which a client is left alone."""


class AttentionSpanConfig(AttackConfig):
    """How far the search goes; what is claimed has no threshold but the noise."""

    updates: int = Field(default=16, ge=1, le=10_000, description="updates of a client that are read, evenly spread")
    pool: int = Field(default=10_000, ge=100, le=1_000_000, description="(token, position) pairs kept in the search")
    repairs: int = Field(default=4, ge=0, le=100, description="times that the weakest choices are taken back")
    rounds: int = Field(
        default=9, ge=0, le=100_000, description="rounds of the search for the order of words whose places make no text"
    )
    tries: int = Field(default=24, ge=1, le=1000, description="words that are exchanged in a text in each of these")
    moves: int = Field(default=160, ge=0, le=10_000, description="orders of a text looked at in every second one")
    prior: LanguageModel = SMALL
    max_positions: int | None = Field(
        default=None, ge=1, le=4096, description="positions looked at; the task's text length if absent"
    )


class AttentionSpan(Attack[AttentionSpanConfig]):
    """Reads through frozen A with more tokens than rank, from the other side of the update.

    The rows of dB = delta' (X A') live in R^rank, which is why span falls silent at tokens >= rank. Its columns do
    not: in each attention head those of the query module lie in the span of the text's keys, those of the key module
    in the span of its queries, in R^head_width. An update shows ``rank`` directions of that span in each of 2 x heads
    places, all made of the same few (token, position) pairs; a joint pursuit finds them, and claims them when they
    leave nothing above the noise. A wrong word can explain an update as well where few directions show: of the words
    claimed at rank 2, .14 were false, at rank 4 .09, from rank 8 on none (``benchmarks.frozen_a --chart``).

    It needs tokens <= head width - rank, counted over all texts of the update (24 in MiniLM at rank 8); an encoder
    whose embeddings are words plus absolute positions under a LayerNorm; SGD; and clients that train without
    dropout, for the keys of a text are those of its words alone only then.

    Nothing is claimed of an update that could not be explained whole. Behind noise (a codec's, mostly) its words can
    stand at places that make no text, some of them twice. Where it is of one text, a search over other
    words and orders goes on from them until the text's gradients span most of the update; that text is claimed.
    Found here; we know of no publication.
    """

    name: ClassVar[str] = "attention-span"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = AttentionSpanConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = "none known; the span is in the manner of Petrov et al., DAGER, NeurIPS 2024"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that an adaptive optimizer hides the span, or that no query or key is adapted that could be read."""
        return heads_hidden(facts)

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return for every client outside the seat the pairs of the updates that could be explained whole."""
        encoder = view.lab.model.encoder.get_base_model()
        dictionary = read_dictionary(encoder, positions=self.config.max_positions or view.facts.max_length)
        if dictionary is None or not dictionary.tells_places:
            return ReconstructionClaim((), note="the embeddings are not words plus positions under a LayerNorm")
        modules = first_modules(view.facts, width=dictionary.words.shape[1])
        if not any(f"{module}.B" in view.facts.travelling.names for module in modules):
            return ReconstructionClaim((), note="no factor B of layer 0 travels")
        reader = Reader(view, make_body(view.lab, dictionary, first_module=modules[0]))
        clients = range(view.colluders, view.facts.clients)
        read = [(client, self._read(reader, client, modules, rng)) for client in clients]
        return ReconstructionClaim(tuple(client_texts(client, reading, view.lab.tokenizer) for client, reading in read))

    def _read(self, reader: Reader, client: int, modules: list[str], rng: np.random.Generator) -> Reading:
        view = reader.view
        texts = view.facts.schedule.batch(client) * view.facts.training.local_steps
        if texts * _SHORTEST > _head_width(view):
            return Reading(note=f"{texts} texts in an update are more tokens than a head is wide")
        held = {message.round: message.state for message in view.broadcasts}
        seen = [update for update in client_shows(view, client, modules=modules) if update.of_b]
        picked = evenly(seen, self.config.updates)
        found: list[Pairs] = []
        explained = 0
        for tried, shown in enumerate(picked):
            if tried == _PATIENCE and not found:  # the others hold as many texts
                break
            pairs = self._pairs(view, held[shown.round], shown.of_b, reader.body.dictionary, known=found)
            if pairs and pairs not in found:
                one = texts == 1 and not spells(pairs, view.lab.tokenizer)
                found.append((self._text(reader, client, shown.round, pairs, rng) if one else None) or pairs)
            explained += bool(pairs)
        everything = frozenset[tuple[int, int]]().union(*found)
        note = f"{explained} of {len(picked)} updates explained"
        return Reading(frozenset(token for token, _ in everything), everything, tuple(found), note)

    def _text(self, reader: Reader, client: int, round: int, pairs: Pairs, rng: np.random.Generator) -> Pairs | None:
        """Return the pairs of a text made of words in ``pairs`` whose gradients span most of the update, if any."""
        body, config = reader.mounted(round), self.config
        row = [token for token, _ in sorted(pairs, key=lambda pair: pair[1]) if token in body.allowed]
        if not row or body.ends is None or not config.rounds:
            return None
        longest = reader.view.facts.max_length - 2
        update = next(shown for shown in reader.shown(client) if shown.round == round)
        backdrop = make_backdrop(body, factor_targets(update), lengths=[min(len(row), longest)], rng=rng)
        prior = causal_prior(config.prior, reader.view.lab.tokenizer)
        search = Exchange(Matched(backdrop, [row[:longest]]), longest, prior)
        own, every = torch.tensor(sorted(set(row))), torch.from_numpy(body.allowed)
        last = config.rounds // 3
        words = [own] * (config.rounds - last) + [every] * last
        search.run(words, tries=config.tries, moves=config.moves, rng=rng)
        if search.share < _SPANNED:
            return None
        opening, closing = body.ends
        return frozenset((token, i) for i, token in enumerate([opening, *search.texts[0], closing]))

    def _pairs(
        self,
        view: View,
        held: Mapping[str, Tensor],
        update: Sequence[Change],
        dictionary: Dictionary,
        *,
        known: Sequence[Pairs],
    ) -> Pairs:
        """Return the pairs that explain an update; those of an earlier one are tried before any search."""
        first = getattr(view.lab.tokenizer, "cls_token_id", None)
        opening = None if first is None else dictionary.inputs(np.array([first]), np.array([0]))[0]
        sides = read_sides(view.lab, held, update, opening=opening)
        if not sides:
            return frozenset()
        tried = (sorted(pairs - {(first, 0)}) for pairs in (set(), *known))  # nothing at all comes first
        for pairs in tried:
            if all(part.empty for part in remainders(dictionary, sides, opening=first, pairs=pairs)):
                return frozenset(pairs) | ({(int(first), 0)} if pairs and first is not None else set())
        search = Pursuit(dictionary, sides, first, pool=self.config.pool, repairs=self.config.repairs)
        said = search.run()
        if not said.complete:
            return frozenset()
        return said.pairs if first is None else said.pairs | {(int(first), 0)}


def _head_width(view: View) -> int:
    config = view.lab.model.encoder.get_base_model().config
    return int(config.hidden_size) // int(config.num_attention_heads)
