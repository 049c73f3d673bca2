"""Reconstructed texts held against what a client trained on, and against texts that it did not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from qlorabench.scoring.intervals import Interval, bootstrap, clopper_pearson, mean_of_shares, relative_gain
from qlorabench.scoring.pooled import ENOUGH, Texts, client_means
from qlorabench.scoring.score import SILENT, Score, against_control, from_interval
from qlorabench.scoring.text import ReconstructionScores, reconstruction_scores, token_scores
from qlorabench.scoring.words import words
from qlorabench.threats.claims import ClientTexts, ReconstructionClaim

LEVEL = 0.95
_LEAKING = ("rouge1", "exact", "exact_with_marks")
"""Scores of whole texts whose advantage over held-out texts is given as leakage: by their words, which are the same
whatever case and punctuation, and by all that is written in them."""
_PLAIN = {"rouge2": "rouge2", "rouge_l": "rouge_l", "edit_distance": "edit"}
"""Scores of whole texts beside their control; the name of the metric and of its field."""
Tokens = AbstractSet[Hashable]
"""Token ids, or (position, token id) pairs."""
_ORDER = ("rouge2", "exact")
"""What needs the order of words: the same claim against the client's own texts with their words shuffled scores
no more than the words alone give."""


@dataclass(frozen=True)
class Sentences:
    """Texts of one client, or of its control: token ids without special ones, and the text they stand for."""

    tokens: tuple[tuple[tuple[int, int], ...], ...]
    """(position, token id) pairs of each text."""
    texts: tuple[str, ...]
    note: str = ""
    """In what the texts of a control differ from the client's, beside that nobody trained on them."""

    @property
    def distinct(self) -> set[int]:
        """Distinct token ids."""
        return {token for pairs in self.tokens for _, token in pairs}

    @property
    def placed(self) -> set[tuple[int, int]]:
        """Distinct (position, token id) pairs."""
        return {pair for pairs in self.tokens for pair in pairs}


def judge_reconstruction(
    claim: ReconstructionClaim,
    truths: Sequence[Sentences],
    controls: Sequence[Sequence[Sentences]],
    *,
    rng: np.random.Generator,
    insiders: int = 0,
) -> list[Score]:
    """Return the scores of the client that the claim exposes most.

    ``truths`` holds the sentences of each client, ``controls`` for each some lots of as many held-out ones. The worst
    of K clients is picked after looking, so its intervals are at the Bonferroni level 1 - 0.05 / K: under the null
    they exclude zero no more often than one interval at 0.95 does. From `ENOUGH` clients on their mean is scored too,
    as one more look; the first ``insiders`` sit in the adversary's seat and have nothing to lose to it.
    Raises ValueError for a claim of a client that there is not, or of one client twice.
    """
    _check(claim, clients=len(truths))
    said = {texts.client: texts for texts in claim.clients}
    pooled = len(truths) - insiders >= ENOUGH
    level = 1 - (1 - LEVEL) / (len(truths) + pooled)
    headlines = [
        _recall(said.get(i, ClientTexts(i)), truth, control, rng=rng, level=level)
        for i, (truth, control) in enumerate(zip(truths, controls, strict=True))
    ]
    worst = max(range(len(truths)), key=lambda i: (headlines[i].leakage_low or 0.0, headlines[i].leakage or 0.0))
    texts = said.get(worst, ClientTexts(worst))
    notes = [f"client {worst} of {len(truths)}, {len(truths[worst].texts)} texts", texts.note, claim.note]
    notes += [lot.note for lot in controls[worst]]
    if not any(texts.tokens or texts.texts for texts in claim.clients):
        notes.insert(0, SILENT)
    note = "; ".join(part for part in notes if part)
    rows = [
        replace(headlines[worst], note=note),
        *_precision(texts, truths[worst], controls[worst], level=level),
    ]
    rows += _sentences(texts, truths[worst], controls[worst], rng=rng, level=level)
    return [*rows, *_pooled(said, truths, controls, rng=rng, level=level, first=insiders)] if pooled else rows


def _check(claim: ReconstructionClaim, *, clients: int) -> None:
    named = [texts.client for texts in claim.clients]
    if strange := sorted(set(named) - set(range(clients))):
        raise ValueError(f"a claim names the clients {strange}; the federation's are 0 to {clients - 1}")
    if len(set(named)) < len(named):
        raise ValueError(
            f"a claim names a client twice, in {named}; all that is claimed of one goes into one ClientTexts"
        )


def _pooled(
    said: Mapping[int, ClientTexts],
    truths: Sequence[Sentences],
    controls: Sequence[Sequence[Sentences]],
    *,
    rng: np.random.Generator,
    level: float,
    first: int,
) -> list[Score]:
    """Return the means over the clients from ``first`` on, one more headline at the same Bonferroni level."""
    true = [_bags(truth) for truth in truths]
    rows = [
        _against(
            f"{means.metric}_clients",
            mean_of_shares(_known(means.hit[first:]), rng=rng, level=level),
            bootstrap(_known(means.miss[first:]), _mean, rng=rng, level=level),  # means of many texts, unlike the hits
        )
        for means in client_means(said, true, [[_bags(lot) for lot in lots] for lots in controls])
    ]
    note = f"mean over {len(truths) - first} clients"
    return [replace(row, note=note, headline=number == 0) for number, row in enumerate(rows)]


def _bags(sentences: Sentences) -> Texts:
    return [{token for _, token in pairs} for pairs in sentences.tokens], sentences.texts


def _recall(
    said: ClientTexts, truth: Sentences, control: Sequence[Sentences], *, rng: np.random.Generator, level: float
) -> Score:
    """Mean over texts of the share of a text's distinct tokens that are claimed."""
    hit, miss = (
        mean_of_shares(np.concatenate([_recalls(said.tokens, lot) for lot in lots]), rng=rng, level=level)
        for lots in ([truth], control)
    )
    return replace(_against("token_recall", hit, miss), headline=True)


def _against(metric: str, hit: Interval, miss: Interval) -> Score:
    """Return the mean score of the texts with its leakage over that of the held-out ones."""
    return against_control(metric, hit, control=miss.value, leak=relative_gain(hit, miss))


def _recalls(claimed: frozenset[int], sentences: Sentences) -> np.ndarray:
    sets = [{token for _, token in pairs} for pairs in sentences.tokens]
    return np.array([len(tokens & claimed) / len(tokens) for tokens in sets if tokens])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _precision(said: ClientTexts, truth: Sentences, control: Sequence[Sentences], *, level: float) -> list[Score]:
    rows = []
    kinds: tuple[tuple[str, Tokens, Tokens, list[Tokens]], ...] = (
        ("token_precision", said.tokens, truth.distinct, [lot.distinct for lot in control]),
        ("placed_precision", said.placed, truth.placed, [lot.placed for lot in control]),
    )
    for metric, claimed, true, others in kinds:
        scores = token_scores(true, claimed)
        if not claimed:
            rows.append(Score(metric, None, n=0, note=SILENT))
            continue
        interval = clopper_pearson(scores.hits, scores.claimed, level=level)
        chance = float(np.mean([len(claimed & other) / len(claimed) for other in others]))
        rows.append(Score(metric, interval.value, interval.low, interval.high, interval.n, control=chance))
    found = clopper_pearson(len(said.placed & truth.placed), len(truth.placed), level=level)
    rows.append(from_interval("placed_recall", found))
    return rows


def _sentences(
    said: ClientTexts, truth: Sentences, control: Sequence[Sentences], *, rng: np.random.Generator, level: float
) -> list[Score]:
    """Return the scores of whole texts; leakage where a metric grows with what is read, none for a distance."""
    if not said.texts:
        names = [*_LEAKING, *_PLAIN, *(f"{metric}_shuffled" for metric in _ORDER)]
        return [Score(metric, None, n=len(truth.texts), note="no texts claimed") for metric in names]
    mixed = [_shuffled(text, rng) for text in truth.texts]
    inside, outside, disordered = (
        [reconstruction_scores(texts, said.texts) for texts in lots]
        for lots in ([truth.texts], [lot.texts for lot in control], [mixed])
    )

    def mean(lots: Sequence[ReconstructionScores], name: str) -> Interval:
        return mean_of_shares(_defined(lots, name), rng=rng, level=level)

    leaking = [_against(metric, mean(inside, metric), mean(outside, metric)) for metric in _LEAKING]
    plain = [
        replace(from_interval(metric, mean(inside, name)), control=_mean(_defined(outside, name)))
        for metric, name in _PLAIN.items()
    ]
    return [*leaking, *plain, *(from_interval(f"{name}_shuffled", mean(disordered, name)) for name in _ORDER)]


def _defined(lots: Sequence[ReconstructionScores], metric: str) -> np.ndarray:
    return _known(np.concatenate([getattr(scores, metric) for scores in lots]))


def _known(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = values[~np.isnan(values)]
    return known


def _shuffled(text: str, rng: np.random.Generator) -> str:
    """Return the words of ``text`` in random order; of a script without spaces too."""
    own = words(text)
    return " ".join(own[i] for i in rng.permutation(len(own)))
