"""Models and claims of which nothing can be told: a failure with its reason, never a number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qlorabench.engines import scene as scenes
from qlorabench.engines.failures import AttackFailed
from qlorabench.engines.measure import measure_leakage, measure_utility
from qlorabench.engines.scene import AttackSpec
from qlorabench.scoring.verdicts import judge_adapter, judge_membership
from qlorabench.threats.claims import AdapterClaim, MembershipClaim
from qlorabench.threats.lab import NotFiniteError
from qlorabench.threats.models import ThreatSpec

from ..federation.language import language_bench, language_system, train_language
from ..federation.systems import system, train


def blown_up(scene):
    """Return an adapter of finite weights under which the model overflows."""
    return {name: torch.full_like(value, 1e30) for name, value in scene.lab.start.items()}


def trained_scene_of(monkeypatch, **adapters):
    """Let every scene have the adapters that ``adapters`` makes of it."""
    original = scenes.Scene
    properties = {name: property(make) for name, make in adapters.items()}
    monkeypatch.setattr(scenes, "Scene", type("Scene", (original,), properties))


def test_utility_of_a_classifier_that_blew_up_fails_and_names_the_adapter(bench, tmp_path, monkeypatch):
    spec = system()
    train(spec, tmp_path)
    trained_scene_of(monkeypatch, final_server=blown_up)
    with pytest.raises(NotFiniteError, match=r"the server's adapter after the last round: .*optimizer.lr"):
        measure_utility(bench, spec, tmp_path)
    trained_scene_of(monkeypatch, final_server=lambda scene: scene.lab.bare, final_broadcast=blown_up)
    with pytest.raises(NotFiniteError, match="the client's adapter"):
        measure_utility(bench, spec, tmp_path)


def test_perplexity_of_a_language_model_that_blew_up_fails_too(tmp_path, monkeypatch):
    spec = language_system()
    train_language(spec, tmp_path)
    trained_scene_of(monkeypatch, final_server=blown_up)
    with pytest.raises(NotFiniteError, match="the server's adapter"):
        measure_utility(language_bench(), spec, tmp_path)


def test_an_attack_that_asks_a_model_that_blew_up_fails(bench, tmp_path, monkeypatch):
    spec = system()
    train(spec, tmp_path)
    threat = ThreatSpec("end-user").resolve()
    attack = AttackSpec(threat, "calibrated-loss", "c", {}, candidates=10, insiders=0)
    real = scenes.observe

    def broken(*arguments, lab, **named):
        view = real(*arguments, lab=lab, **named)
        return replace(view, _facets={name: blown_up_facet(value, lab) for name, value in view._facets.items()})

    def blown_up_facet(value, lab):
        return {name: torch.full_like(t, 1e30) for name, t in value.items()} if isinstance(value, dict) else value

    monkeypatch.setattr(scenes, "observe", broken)
    with pytest.raises(AttackFailed, match=r"NotFiniteError in calibrated_loss.py.*largest weight is 1e\+30"):
        measure_leakage(bench, spec, tmp_path, attack)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.0, np.nan, 1.0, 2.0], "1 of 4 scores"),
        ([0.0, np.inf, 1.0, -np.inf], "2 of 4 scores"),
        ([0.0, 1.0], r"shape \(2,\)"),
        ([[0.0], [1.0], [1.0], [1.0]], r"shape \(4, 1\)"),
    ],
)
def test_membership_scores_that_do_not_fit_say_what_is_wrong(scores, said):
    members = np.array([True, False, True, False])
    with pytest.raises(ValueError, match=said):
        judge_membership(MembershipClaim(np.array(scores)), members, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("tensor", "said"), [(torch.ones(3, 2), "shape"), (torch.full((2, 3), np.nan), "not finite")])
def test_a_claimed_adapter_that_does_not_fit_says_what_is_wrong(tensor, said):
    truth = {"m.B": torch.ones(2, 3)}
    with pytest.raises(ValueError, match=said):
        judge_adapter(
            AdapterClaim({"m.B": tensor}), truth=truth, broadcast=truth, public={}, scaling=1.0, gap=None, rng=None
        )
