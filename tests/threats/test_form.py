"""A claim is held against the form that its goal asks for before anybody judges it."""

import numpy as np
import pytest
import torch

from qlorabench.threats.attack import Attack, AttackConfig, attack_problems
from qlorabench.threats.claims import (
    AdapterClaim,
    ClientTexts,
    ExtractionClaim,
    Goal,
    MembershipClaim,
    ReconstructionClaim,
)
from qlorabench.threats.form import claim_problem

SHAPES = {"q.A": (2, 3), "q.B": (4, 2)}


def problem(claim, goal):
    return claim_problem(claim, goal, clients=2, candidates=4, adapter=SHAPES)


def adapter(**changes):
    state = {name: torch.zeros(shape) for name, shape in SHAPES.items()} | changes
    return AdapterClaim({name: value for name, value in state.items() if value is not None})


def texts(*clients):
    return ReconstructionClaim(tuple(clients))


@pytest.mark.parametrize(
    ("claim", "goal"),
    [
        (MembershipClaim(np.arange(4)), Goal.MEMBERSHIP),
        (MembershipClaim(np.zeros(4)), Goal.VERIFICATION),
        (adapter(), Goal.ADAPTER),
        (ExtractionClaim((), np.empty((0, 0))), Goal.EXTRACTION),
        (texts(), Goal.RECONSTRUCTION),
        (
            texts(ClientTexts(np.int64(1), frozenset({np.int64(3), 4}), frozenset({(0, 4)}), ("a b",))),
            Goal.RECONSTRUCTION,
        ),
    ],
)
def test_a_claim_in_its_form_has_no_problem(claim, goal):
    assert problem(claim, goal) is None


@pytest.mark.parametrize(
    ("claim", "goal", "said"),
    [
        (None, Goal.MEMBERSHIP, "it returned a NoneType; an attack whose goal is membership returns a MembershipClaim"),
        (texts(), Goal.MEMBERSHIP, "it returned a ReconstructionClaim"),
        (MembershipClaim(np.zeros(4), note=3), Goal.MEMBERSHIP, "its note is a int"),
        (MembershipClaim(np.zeros(3)), Goal.MEMBERSHIP, "4 candidates"),
        (MembershipClaim(np.zeros((4, 1))), Goal.MEMBERSHIP, r"(4, 1)"),
        (MembershipClaim(["a", "b", "c", "d"]), Goal.MEMBERSHIP, "not real numbers"),
        (MembershipClaim(np.array([0, 1, np.nan, np.inf])), Goal.MEMBERSHIP, "2 of its 4 scores are not finite"),
        (adapter(**{"q.A": None}), Goal.ADAPTER, "missing or too many: q.A"),
        (adapter(**{"k.A": torch.zeros(1)}), Goal.ADAPTER, "missing or too many: k.A"),
        (adapter(**{"q.A": torch.zeros(3, 2)}), Goal.ADAPTER, "(3, 2) for q.A"),
        (adapter(**{"q.A": np.zeros((2, 3))}), Goal.ADAPTER, "ndarray for q.A"),
        (adapter(**{"q.A": torch.full((2, 3), torch.nan)}), Goal.ADAPTER, "not finite"),
        (AdapterClaim([1]), Goal.ADAPTER, "not a mapping"),
        (ReconstructionClaim({0: "a"}), Goal.RECONSTRUCTION, "tuple of ClientTexts"),
        (texts(ClientTexts(2)), Goal.RECONSTRUCTION, "it names client 2; there are clients 0 to 1"),
        (texts(ClientTexts("0")), Goal.RECONSTRUCTION, "it names client '0'"),
        (texts(ClientTexts(0), ClientTexts(0)), Goal.RECONSTRUCTION, "client 0 twice"),
        (texts(ClientTexts(0, frozenset({"word"}))), Goal.RECONSTRUCTION, "not whole numbers"),
        (texts(ClientTexts(0, frozenset(), frozenset({3}))), Goal.RECONSTRUCTION, "not pairs"),
        (texts(ClientTexts(0, texts="one text")), Goal.RECONSTRUCTION, "not a tuple of texts"),
    ],
)
def test_a_claim_of_another_form_is_told_what_is_wrong(claim, goal, said):
    assert said in problem(claim, goal)


class Whole(Attack[AttackConfig]):
    name = "whole"
    goal = Goal.MEMBERSHIP
    Config = AttackConfig
    requires = frozenset()

    def run(self, view, rng):
        return None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "no name"),
        ("goal", "membership", "goal must be"),
        ("Config", dict, "AttackConfig"),
        ("requires", ["candidates"], "'requires'"),
        ("uses", frozenset({"candidates"}), "'uses'"),
        ("run", Attack.run, "does not define run"),
    ],
)
def test_a_class_that_is_not_whole_is_told_what_is_missing(field, value, said):
    assert attack_problems(Whole) == []
    (told,) = attack_problems(type("Odd", (Whole,), {field: value}))
    assert said in told
