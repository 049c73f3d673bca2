"""Reconstructed texts held against what a client trained on, and against texts that it did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qlorabench.scoring.intervals import bootstrap, bootstrap_two, clopper_pearson
from qlorabench.scoring.pooled import ENOUGH, client_means
from qlorabench.scoring.score import SILENT, Score, against_control, from_interval
from qlorabench.scoring.text import ReconstructionScores, reconstruction_scores, token_scores
from qlorabench.threats.claims import ClientTexts, ReconstructionClaim

LEVEL = 0.95
_LEAKING = ("rouge1", "exact")
"""Scores of whole texts whose advantage over held-out texts is given as leakage."""
_PLAIN = {"rouge2": "rouge2", "rouge_l": "rouge_l", "edit_distance": "edit"}
"""Scores of whole texts beside their control; the name of the metric and of its field."""
_ORDER = ("rouge2", "exact")
"""What needs the order of words: the same claim against the client's own texts with their words shuffled scores
no more than the words alone give."""


@dataclass(frozen=True)
class Sentences:
    """Texts of one client, or of its control: token ids without special ones, and the text they stand for."""

    tokens: tuple[tuple[tuple[int, int], ...], ...]
    """(position, token id) pairs of each text."""
    texts: tuple[str, ...]

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
    controls: Sequence[Sentences],
    *,
    rng: np.random.Generator,
    insiders: int = 0,
) -> list[Score]:
    """Return the scores of the client that the claim exposes most.

    ``truths`` and ``controls`` hold the sentences of each client and as many held-out ones. The worst of K
    clients is picked after looking, so its intervals are at the Bonferroni level 1 - 0.05 / K: under the
    null they exclude zero no more often than one interval at 0.95 does. From `ENOUGH` clients on their mean is
    scored too, as one more look; the first ``insiders`` sit in the adversary's seat and have nothing to lose to it.
    """
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
    if not any(texts.tokens or texts.texts for texts in claim.clients):
        notes.insert(0, SILENT)
    note = "; ".join(part for part in notes if part)
    rows = [
        replace(headlines[worst], note=note),
        *_precision(texts, truths[worst], controls[worst], level=level),
    ]
    rows += _sentences(texts, truths[worst], controls[worst], rng=rng, level=level)
    return [*rows, *_pooled(said, truths, controls, rng=rng, level=level, first=insiders)] if pooled else rows


def _pooled(
    said: Mapping[int, ClientTexts],
    truths: Sequence[Sentences],
    controls: Sequence[Sentences],
    *,
    rng: np.random.Generator,
    level: float,
    first: int,
) -> list[Score]:
    """Return the means over the clients from ``first`` on, one more headline at the same Bonferroni level."""
    sides = [[([{t for _, t in pairs} for pairs in s.tokens], s.texts) for s in side] for side in (truths, controls)]
    rows = [
        _against(f"{means.metric}_clients", means.hit[first:], means.miss[first:], rng=rng, level=level)
        for means in client_means(said, *sides)
    ]
    note = f"mean over {len(truths) - first} clients"
    return [replace(row, note=note, headline=number == 0) for number, row in enumerate(rows)]


def _recall(
    said: ClientTexts, truth: Sentences, control: Sentences, *, rng: np.random.Generator, level: float
) -> Score:
    """Mean over texts of the share of a text's distinct tokens that are claimed."""
    hit, miss = (_recalls(said.tokens, sentences) for sentences in (truth, control))
    return replace(_against("token_recall", hit, miss, rng=rng, level=level), headline=True)


def _against(metric: str, hit: np.ndarray, miss: np.ndarray, *, rng: np.random.Generator, level: float) -> Score:
    """Return the mean of ``hit``, a score of each text, with its leakage over ``miss``, those of the held-out ones."""
    inside = bootstrap(hit, _mean, rng=rng, level=level)
    base = _mean(miss)
    leak = bootstrap_two(hit, miss, _gain, rng=rng, level=level)
    if len(hit) > 1 and np.isin(hit, (0.0, 1.0)).all():
        inside = clopper_pearson(int(hit.sum()), len(hit), level=level)
        if hit.min() == hit.max() and base < 1.0:
            # resampling equal units shows no spread: the exact interval of as many coins that fell alike does
            ends = [None if end is None else (end - base) / (1.0 - base) for end in (inside.low, inside.high)]
            leak = replace(leak, low=ends[0], high=ends[1])
    return against_control(metric, inside, control=base, leak=leak)


def _recalls(claimed: frozenset[int], sentences: Sentences) -> np.ndarray:
    sets = [{token for _, token in pairs} for pairs in sentences.tokens]
    return np.array([len(tokens & claimed) / len(tokens) for tokens in sets if tokens])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _gain(hit: np.ndarray, miss: np.ndarray) -> float:
    """Leakage of the recall; a claim that holds every token there is tells nothing."""
    base = miss.mean()
    return float((hit.mean() - base) / (1.0 - base)) if base < 1.0 else 0.0


def _precision(said: ClientTexts, truth: Sentences, control: Sentences, *, level: float) -> list[Score]:
    rows = []
    for metric, claimed, true, other in (
        ("token_precision", said.tokens, truth.distinct, control.distinct),
        ("placed_precision", said.placed, truth.placed, control.placed),
    ):
        scores = token_scores([*map(hash, true)], [*map(hash, claimed)])
        if not claimed:
            rows.append(Score(metric, None, n=0, note=SILENT))
            continue
        interval = clopper_pearson(scores.hits, scores.claimed, level=level)
        chance = len(set(claimed) & other) / len(claimed)
        rows.append(Score(metric, interval.value, interval.low, interval.high, interval.n, control=chance))
    found = clopper_pearson(len(said.placed & truth.placed), len(truth.placed), level=level)
    rows.append(from_interval("placed_recall", found))
    return rows


def _sentences(
    said: ClientTexts, truth: Sentences, control: Sentences, *, rng: np.random.Generator, level: float
) -> list[Score]:
    """Return the scores of whole texts; leakage where a metric grows with what is read, none for a distance."""
    if not said.texts:
        names = [*_LEAKING, *_PLAIN, *(f"{metric}_shuffled" for metric in _ORDER)]
        return [Score(metric, None, n=len(truth.texts), note="no texts claimed") for metric in names]
    mixed = [_shuffled(text, rng) for text in truth.texts]
    inside, outside, disordered = (reconstruction_scores(t, said.texts) for t in (truth.texts, control.texts, mixed))
    leaking = [
        _against(metric, _defined(inside, metric), _defined(outside, metric), rng=rng, level=level)
        for metric in _LEAKING
    ]
    plain = [
        replace(_mean_score(metric, inside, name, rng=rng, level=level), control=_mean(_defined(outside, name)))
        for metric, name in _PLAIN.items()
    ]
    return [*leaking, *plain, *(_mean_score(f"{m}_shuffled", disordered, m, rng=rng, level=level) for m in _ORDER)]


def _mean_score(
    metric: str, scores: ReconstructionScores, name: str, *, rng: np.random.Generator, level: float
) -> Score:
    return from_interval(metric, bootstrap(_defined(scores, name), _mean, rng=rng, level=level))


def _defined(scores: ReconstructionScores, metric: str) -> np.ndarray:
    values: np.ndarray = getattr(scores, metric)
    defined: np.ndarray = values[~np.isnan(values)]
    return defined


def _shuffled(text: str, rng: np.random.Generator) -> str:
    return " ".join(rng.permutation(text.split()).tolist())
