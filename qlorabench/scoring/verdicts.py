"""Membership scores and recovered adapters held against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from qlorabench.scoring.intervals import bootstrap, relative_gain
from qlorabench.scoring.membership import (
    MembershipScores,
    OperatingPoint,
    advantage_leakage,
    auc,
    auc_leakage,
    coin_flip_control,
    membership_scores,
)
from qlorabench.scoring.ranks import Matched
from qlorabench.scoring.recovery import FactorNames, relative_error_of_products
from qlorabench.scoring.score import EXACT, NO_GAP, Score, against_control, share
from qlorabench.threats.claims import AdapterClaim, MembershipClaim

FPR = 0.01
"""False positive rate at which the true positive rate is told."""
FLIPS = 16
"""Coin flips that the negative control of a membership game is the mean of."""


def judge_membership(
    claim: MembershipClaim,
    members: np.ndarray,
    *,
    rng: np.random.Generator,
    matched: Matched | None = None,
    note: str = "",
) -> list[Score]:
    """Return AUC (the headline), TPR at 1 % FPR and the cross-fitted advantage, each against its control.

    The control is what chance gives (coin flips among non-members; for TPR the FPR), or what the same attack gets on
    what was not trained on the candidates, where there is such a ``matched.null`` and that is more. ``note`` says what
    the control was. Raises ValueError where the scores are not one finite number a candidate.
    """
    _check_scores(claim, candidates=len(members))
    scores = np.asarray(claim.scores, np.float64)
    found = membership_scores(scores, members=members, rng=rng, fprs=(FPR,), matched=matched)
    strata = None if matched is None else matched.strata[~members]
    flips = [coin_flip_control(scores[~members], rng=rng, strata=strata) for _ in range(FLIPS)]
    chance = {
        "auc": float(np.mean([auc(flip.scores, members=flip.members) for flip in flips])),
        "tpr": found.operating_points[0].fpr.value or 0.0,
        "advantage": 0.0,
    }
    point, exposed = found.operating_points[0], found.operating_points[0].leakage
    null = _null_scores(matched, members, rng=rng.spawn(1)[0])
    if null is not None:
        above = null.operating_points[0]
        chance["auc"] = max(chance["auc"], null.auc.value or 0.0)
        chance["tpr"] = max(chance["tpr"], above.tpr.value or 0.0)
        chance["advantage"] = max(chance["advantage"], null.advantage.value or 0.0)
        if above.leakage.value:
            exposed = relative_gain(exposed, above.leakage)
    options: dict[str, Any] = {"members": members, "rng": rng, "matched": matched}
    measured = [
        against_control("auc", found.auc, control=chance["auc"], leak=auc_leakage(scores, **options)),
        against_control("tpr_at_1pct_fpr", point.tpr, control=chance["tpr"], leak=exposed),
        against_control(
            "advantage", found.advantage, control=chance["advantage"], leak=advantage_leakage(scores, **options)
        ),
    ]
    notes = ("; ".join(part for part in (claim.note, note) if part), _rate_note(point), "")
    return [replace(row, headline=row.metric == "auc", note=said) for row, said in zip(measured, notes, strict=True)]


def _null_scores(matched: Matched | None, members: np.ndarray, *, rng: np.random.Generator) -> MembershipScores | None:
    """Return what the same attack gets where nobody trained on the candidates; ``None`` where that was not asked."""
    if matched is None or matched.null is None:
        return None
    asked = ~np.isnan(matched.null)
    return membership_scores(matched.null[asked], members=members[asked], rng=rng, fprs=(FPR,), draws=1)


def _check_scores(claim: MembershipClaim, *, candidates: int) -> None:
    scores = np.asarray(claim.scores, np.float64)
    if scores.shape != (candidates,):
        raise ValueError(
            f"a membership claim has scores of the shape {scores.shape}; the view has {candidates} candidates, "
            "and each gets one score"
        )
    strange = int(np.count_nonzero(~np.isfinite(scores)))
    if strange:
        raise ValueError(f"{strange} of {candidates} scores of a membership claim are infinite or not a number")


def _rate_note(point: OperatingPoint) -> str:
    """Say at which rate the claims stand, and where the non-members are too few to tell a rate of 1 %."""
    said = f"at a false positive rate of {point.fpr.value or 0.0:.4f}"
    if point.fpr.n * point.target >= 1:
        return said
    return f"{said}; {point.fpr.n} non-members cannot show 1 %: the true rate may be up to {point.fpr.high:.3f}"


def judge_adapter(
    claim: AdapterClaim,
    *,
    truth: Mapping[str, Tensor],
    broadcast: Mapping[str, Tensor],
    public: Mapping[str, Tensor],
    scaling: float,
    gap: Score,
    rng: np.random.Generator,
) -> list[Score]:
    """Return the utility gap, the share of quantization error removed (the headline) and the error of B A.

    ``public`` holds the tensors that do not travel. Where the broadcast is exact there is no error to
    remove: every receiver holds the adapter, and the leakage is 1. Raises KeyError where the claim lacks a tensor of
    ``truth``, ValueError where one has another shape or is not finite.
    """
    guess = {name: claim.state[name] for name in truth}
    _check_tensors(guess, truth)
    errors = _squared_errors(truth, broadcast, guess)
    protected = gap.low is not None and gap.low > 0
    note = "; ".join(part for part in (claim.note, "" if protected else NO_GAP) if part)
    rows = [gap, _error_removed(errors, note=note, rng=rng)]
    return [*rows, _product_error(truth, broadcast, guess, public, scaling=scaling, rng=rng)]


def _check_tensors(guess: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> None:
    for name, tensor in guess.items():
        if tensor.shape != truth[name].shape:
            wanted = tuple(truth[name].shape)
            raise ValueError(f"an adapter claim has {name} in the shape {tuple(tensor.shape)}; it travels as {wanted}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"an adapter claim has numbers in {name} that are not finite")


def _squared_errors(
    truth: Mapping[str, Tensor], broadcast: Mapping[str, Tensor], guess: Mapping[str, Tensor]
) -> np.ndarray:
    """Return (tensors, 2): squared error of the broadcast, and of the recovered adapter."""
    factors = [name for name in truth if not name.startswith("head.")]
    return np.array([[_distance(truth[n], broadcast[n]), _distance(truth[n], guess[n])] for n in factors])


def _distance(left: Tensor, right: Tensor) -> float:
    return float((left.double() - right.double()).square().sum())


def _removed(errors: np.ndarray) -> float:
    before, after = errors.sum(0)
    return float(1.0 - after / before) if before > 0 else float("nan")


def _error_removed(errors: np.ndarray, *, note: str, rng: np.random.Generator) -> Score:
    if errors[:, 0].sum() == 0.0:
        return Score(
            "error_removed",
            None,
            n=len(errors),
            leakage=1.0,
            leakage_low=1.0,
            leakage_high=1.0,
            headline=True,
            note=EXACT,
        )
    found = bootstrap(errors, _removed, rng=rng)
    return Score(
        "error_removed",
        found.value,
        found.low,
        found.high,
        found.n,
        control=0.0,
        leakage=share(found.value),
        leakage_low=share(found.low),
        leakage_high=share(found.high),
        headline=True,
        note=note,
    )


def _product_error(
    truth: Mapping[str, Tensor],
    broadcast: Mapping[str, Tensor],
    guess: Mapping[str, Tensor],
    public: Mapping[str, Tensor],
    *,
    scaling: float,
    rng: np.random.Generator,
) -> Score:
    names = {**public, **truth}
    pairs = {n[:-2]: FactorNames(n, f"{n[:-2]}.B") for n in names if n.endswith(".A")}
    arrays = [
        {n: {**public, **state}[n].double().numpy() for pair in pairs.values() for n in pair}
        for state in (truth, broadcast, guess)
    ]
    before = relative_error_of_products(arrays[0], arrays[1], pairs=pairs, scaling=scaling)
    after = relative_error_of_products(arrays[0], arrays[2], pairs=pairs, scaling=scaling)
    interval = after.interval(rng=rng)
    return Score("product_error", interval.value, interval.low, interval.high, interval.n, control=before.value)
