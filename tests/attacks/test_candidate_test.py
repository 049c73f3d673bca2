"""The candidate test on toy federations, classifiers and language models, and on noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.attacks.broadcast_difference import DifferenceTest
from qlorabench.attacks.candidate_test import CandidateTest, CandidateTestConfig
from qlorabench.scoring.membership import auc
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import View

from ..federation.language import language_bench, language_system, train_language
from ..federation.systems import FROZEN, PRIVATE, QUANTIZED, UPLOAD, system, toy_bench, train
from ..threats.seats import PRESETS, view_of

SYSTEMS = {"plain": (), "frozen-a": (FROZEN,), "quantized": (QUANTIZED, UPLOAD), "dp-sgd": (PRIVATE,)}


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Return a function from the names of a system and a seat to a view of it; systems are trained once."""
    made = {}

    def view(name, seat="server"):
        spec = system(*SYSTEMS[name], rank=8, rounds=4)
        if name not in made:
            made[name] = tmp_path_factory.mktemp("out")
            train(spec, made[name])
        return view_of(spec, made[name], PRESETS[seat], candidates=40)

    return view


def members(view, task):
    """Which candidates are some client's rows, by their tokens."""
    own = {tuple(task.encoded.ids[row]) for rows in task.client_rows for row in rows}
    return np.array([tuple(ids) in own for ids in view.candidates.ids])


def area(view, task=None, attack=CandidateTest, **config):
    claim = attack(CandidateTestConfig(**config)).run(view, np.random.default_rng(0))
    return auc(claim.scores, members=members(view, task or toy_bench().tasks[0]))


@pytest.mark.parametrize("name", ["plain", "frozen-a", "quantized"])
def test_members_are_told_from_others(views, name):
    assert area(views(name)) > 0.75  # of 40 and 40 candidates: 3.8 standard errors above chance


def test_colluders_tell_the_last_clients_rows_from_broadcasts_alone(views):
    assert area(views("plain", "colluding-clients(2)"), attack=DifferenceTest) > 0.75


def test_private_updates_tell_little(views):
    assert area(views("dp-sgd")) < 0.75  # 40 and 40 candidates: 3.8 standard errors of chance


def test_taking_all_candidates_together_beats_one_at_a_time(views):
    together, *alone = (area(views("plain"), statistic=s) for s in ("regression", "alignment", "cosine"))
    assert together > max(alone)


def test_noise_of_the_updates_size_tells_nothing(views):
    view, areas = views("plain"), []
    for seed in range(6):
        rng = torch.Generator().manual_seed(seed)
        noisy = tuple(
            replace(u, state={n: v.std() * torch.randn(v.shape, generator=rng) for n, v in u.state.items()})
            for u in view.updates
        )
        blank = replace(view, _facets={**view._facets, Capability.OTHERS_UPDATES: noisy})
        areas.append(area(blank, rounds=1))
    assert abs(np.mean(areas) - 0.5) < 3 * 0.092 / 6**0.5  # standard error of the area of 20 and 20


def test_updates_that_are_zero_or_not_finite_give_equal_scores(views):
    view = views("plain")
    for value in (0.0, np.nan):
        broken = tuple(
            replace(u, state={n: torch.full_like(v, value) for n, v in u.state.items()}) for u in view.updates
        )
        claim = CandidateTest(CandidateTestConfig()).run(
            replace(view, _facets={**view._facets, Capability.OTHERS_UPDATES: broken}), np.random.default_rng(0)
        )
        assert not claim.scores.any()


def test_colluders_updates_are_left_out(views):
    view = views("plain")
    insider = View(view.threat, 1, view.facts, view.lab, view._facets)
    assert "2 clients" in CandidateTest(CandidateTestConfig()).run(insider, np.random.default_rng(0)).note


def test_rounds_are_spread_and_no_more_than_there_are(views):
    note = CandidateTest(CandidateTestConfig(rounds=100)).run(views("plain"), np.random.default_rng(0)).note
    assert "4 of 4 rounds" in note


def test_it_reads_language_models(tmp_path):
    spec = language_system(rounds=3)
    train_language(spec, tmp_path)
    view = view_of(spec, tmp_path, PRESETS["server"], bench=language_bench())
    assert area(view, language_bench().tasks[0], rounds=3) > 0.8
