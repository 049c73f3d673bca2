"""Reconstruction of words and sentences from the space that a client's updates span."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._batches import read_batches
from ._dictionary import Dictionary, read_dictionary
from ._evidence import Law
from ._observed import client_shows, first_modules
from ._reading import Bench, Reading, read_layer
from ._sentences import Composer
from ._spelling import client_texts


class SpanConfig(AttackConfig):
    """Thresholds, all set without the truth."""

    decoy_share: float = Field(
        default=0.3, gt=0, lt=1, description="a word is claimed below this share of the best decoy's residual"
    )
    false_alarm: float = Field(default=1e-6, gt=0, lt=1, description="false claims expected of a client by chance")
    place_score: float = Field(
        default=0.18, gt=0, le=1, description="share of a word's power above which a position is claimed"
    )
    place_iterations: int = Field(
        default=100, ge=1, le=10_000, description="steps of the sparse fit of words to positions"
    )
    sentence_share: float = Field(
        default=0.3, gt=0, lt=1, description="a sentence is claimed below this share of its best decoy's residual"
    )
    tries: int = Field(default=40, ge=1, le=1000, description="random starts of the search for a sentence")
    budget: int = Field(
        default=100_000,
        ge=1,
        le=1_000_000_000,
        description="about how many sentences of a client are scored where updates are read alone",
    )
    rounds_budget: int = Field(
        default=150_000,
        ge=0,
        le=1_000_000_000,
        description="about how many sentences of a client are scored where texts are told apart by their rounds",
    )
    max_positions: int | None = Field(
        default=None, ge=1, le=4096, description="positions looked at; the task's text length if absent"
    )


class Span(Attack[SpanConfig]):
    """DAGER's span check, carried to LoRA factors, to frozen A, and over rounds.

    A row of the gradient of a weight is a combination of the layer's inputs, and those of the first adapted
    layer are LayerNorm(token + position), which no adapter changes: whatever lies in the span of the rows was
    said. DAGER tests one gradient, of a full weight or of A at rank 256 with fewer tokens than that, against
    thresholds set by hand. Here:

    - trained A: the rows of dA of all rounds count together, so that the limit is not rank but width. Positions
      and the LayerNorm's bias join the basis, which makes the test of a word free of its position. Positions
      follow from the marginals of words and places over the rows, if the words found explain the rows; an update
      of fewer tokens than rows is also read alone, word by word in place.
    - frozen A: dB shows A x alone, in R^rank, and rounds do not add up. Each update is tested alone, modules
      give joint evidence, and the direction that softmax hides in the keys is put back.
    - dB of an update of fewer tokens than the rank is read alone, with trained A too and from the first round on;
      what several sentences leave open is settled by the second layer, whose inputs depend on the whole text: a
      search by their distance from that layer's space for encoders, prefixes that grow for causal models. Words that
      share positions span each other's pairs; those that carry power are looked at first.
    - texts of small batches come and go over the rounds, and so do their words, which tells the texts apart; the
      second layer's rows of rounds with known partners put each in order.
    - a claim must be much closer than the closest of as many decoys, shuffled words that no one wrote.
    - rows are divided by their noise (float32, codec, DP-SGD, all public) and only directions above the edge
      of pure noise count: under strong noise the attack says that it sees nothing.

    Words at wrong positions are the main error where every text is in every update and only the rounds together show
    enough: there the second layer's inputs drift and outnumber its directions, so that no sentence is claimed. Texts
    longer than ``max_positions`` tokens are read up to there.
    """

    name: ClassVar[str] = "span"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = SpanConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})
    paper: ClassVar[str] = "Petrov et al., DAGER: Exact Gradient Inversion for Large Language Models, NeurIPS 2024"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that an adaptive optimizer hides the span; all else shows in the updates alone."""
        if facts.training.optimizer.kind == "adamw":
            return "AdamW rescales every element of the update, so its rows leave the span of the inputs"
        return None

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return the words of every client outside the seat, their places, and sentences that stood alone."""
        encoder = view.lab.model.encoder.get_base_model()
        positions = self.config.max_positions or view.facts.max_length
        dictionary = read_dictionary(encoder, positions=positions)
        if dictionary is None:
            return ReconstructionClaim(
                (),
                note="embeddings that are read: BERT's, GPT-2's (LayerNorm), Llama's (RMSNorm), and none like these",
            )
        width = dictionary.words.shape[1]
        modules = first_modules(view.facts, width=width)
        if not modules:
            return ReconstructionClaim((), note="no adapter reads the embeddings")
        bench = self._bench(view, dictionary, rng)
        composer = Composer(
            view,
            width,
            len(dictionary.words),
            positions,
            self.config.sentence_share,
            self.config.tries,
            self.config.budget,
            rng,
        )
        clients = range(view.colluders, view.facts.clients)
        budget = self.config.rounds_budget
        read = [(client, _read(bench, composer, view, client, modules, budget)) for client in clients]
        texts = tuple(client_texts(client, reading, view.lab.tokenizer) for client, reading in read)
        return ReconstructionClaim(texts, note=f"{len(modules)} modules of layer 0, {len(dictionary.places)} positions")

    def _bench(self, view: View, dictionary: Dictionary, rng: np.random.Generator) -> Bench:
        names = ("cls_token_id", "bos_token_id")
        first = next((t for n in names if (t := getattr(view.lab.tokenizer, n, None)) is not None), None)
        return Bench(
            dictionary,
            dictionary.decoy(rng.permutation(dictionary.words.shape[1])),
            None if first is None else int(first),
            Law(self.config.decoy_share, self.config.false_alarm),
            self.config.place_iterations,
            self.config.place_score,
        )


def _read(bench: Bench, composer: Composer, view: View, client: int, modules: list[str], budget: int) -> Reading:
    reading = composer.compose(client, read_layer(bench, client_shows(view, client, modules=modules)))
    if not bench.dictionary.tells_places:
        reading = replace(reading, places=frozenset(), updates=())
    elif not reading.sentences:
        reading = _in_batches(bench, composer, view, client, reading, budget)
    whole = len(reading.sentences)
    return replace(reading, note=f"{reading.note}; {whole} sentences fit the second layer") if whole else reading


def _in_batches(bench: Bench, composer: Composer, view: View, client: int, reading: Reading, budget: int) -> Reading:
    """Return ``reading`` with the sentences that its words make up by the rounds in which they come and go."""
    batches = read_batches(
        view,
        bench.dictionary,
        client=client,
        tokens=np.array(sorted(reading.words), dtype=np.int64),
        share=composer.share,
        false_alarm=bench.law.false_alarm,
        budget=budget,
        rng=composer.rng,
    )
    if batches is None:
        return reading
    batches.settle()
    sentences = tuple(batches.claimed())
    places = frozenset((token, i) for sentence in sentences for i, token in enumerate(sentence))
    whole = len(sentences) == len(batches.drafts)
    return replace(reading, sentences=sentences, places=places if whole else reading.places | places)
