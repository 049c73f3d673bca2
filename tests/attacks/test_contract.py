"""What every registered attack keeps to, a plug-in that is installed included."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from qlorabench.federation.facts import PublicFacts
from qlorabench.plugins import registry
from qlorabench.threats.attack import Attack, AttackConfig, misfit
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import AdapterClaim, ExtractionClaim, Goal, MembershipClaim, ReconstructionClaim
from qlorabench.threats.models import presets

from ..federation.systems import CLIENTS, FROZEN, QUANTIZED, UPLOAD, system, train
from ..threats.seats import CANDIDATES, PRESETS, view_of

NAMES = registry("attacks").names()
SMALL = {
    "attention-span": {"prior": None},
    "attention-words": {"pool": 200, "words": 20},
    "gradient-matching": {
        "starts": 2,
        "probe": 1,
        "steps": 2,
        "cycles": 2,
        "rounds": 1,
        "words": 20,
        "texts": 1,
        "prior": None,
    },
    "subspace-descent": {"steps": 4, "rounds": 1, "prior": None},
    "word-matching": {"words": 20, "pool": 200, "starts": 1, "steps": 2, "rounds": 1, "prior": None},
}
"""Budgets for those that search: the contract does not depend on how long they do."""
SYSTEMS = {"plain": (), "defended": (FROZEN, QUANTIZED, UPLOAD)}
PAIRS = [
    (name, threat.label)
    for name in NAMES
    for threat in presets()
    if misfit(registry("attacks").load(name), threat) is None
]


@pytest.fixture(params=NAMES)
def cls(request):
    return registry("attacks").load(request.param)


@pytest.fixture(scope="module", params=SYSTEMS)
def federation(request, tmp_path_factory):
    spec, out = system(*SYSTEMS[request.param], head="frozen"), tmp_path_factory.mktemp("out")
    train(spec, out)
    return spec, out


def test_those_that_ship_are_registered():
    assert {"calibrated-loss", "smoothing", "span"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_called_what_it_is_registered_as(name):
    found = registry("attacks").load(name)
    assert issubclass(found, Attack)
    assert found.name == name


def test_it_says_what_it_does_and_where_it_comes_from(cls):
    assert cls.__doc__
    assert cls.__doc__ != Attack.__doc__
    assert cls.Config.__doc__
    assert cls.paper
    assert isinstance(cls.goal, Goal)
    assert isinstance(cls.version, int)


def test_the_defaults_are_a_config_that_survives_json(cls):
    config = cls.Config()
    assert isinstance(config, AttackConfig)
    assert cls.Config.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_every_field_has_a_default_and_a_description(cls):
    for name, field in cls.Config.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_every_number_is_ranged(cls):
    for name, field in cls.Config.model_json_schema()["properties"].items():
        for kind in field.get("anyOf", [field]):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & set(kind), name


def test_a_config_is_frozen_and_refuses_unknown_keys(cls):
    config = cls.Config()
    for name in cls.Config.model_fields:
        with pytest.raises(ValidationError):
            setattr(config, name, getattr(config, name))
    with pytest.raises(ValidationError, match="no_such_key"):
        cls.Config.model_validate({"no_such_key": 1})


def test_what_it_asks_for_is_in_the_vocabulary_and_some_seat_has_it(cls):
    assert cls.requires
    assert cls.requires | cls.uses <= set(Capability)
    assert not cls.requires & cls.uses
    assert any(misfit(cls, threat) is None for threat in presets())


def fingerprint(claim):
    if isinstance(claim, MembershipClaim):
        return claim.scores.tolist()
    if isinstance(claim, AdapterClaim):
        return {name: value.tolist() for name, value in claim.state.items()}
    if isinstance(claim, ExtractionClaim):
        return claim.guesses, claim.scores.tolist()
    return claim


def check(claim, view):
    """Check that a claim is one a judge can read; that it claims something is no one's duty."""
    if isinstance(claim, MembershipClaim):
        assert claim.scores.shape == (2 * CANDIDATES,)
        assert np.isfinite(claim.scores).all()
    elif isinstance(claim, AdapterClaim):
        for spec in view.facts.travelling:
            assert claim.state[spec.name].shape == spec.shape
            assert bool(torch.isfinite(claim.state[spec.name]).all())
    elif isinstance(claim, ExtractionClaim):
        assert (len(claim.guesses), claim.scores.shape) == (0, (0, 0))  # the toy has no prompts to ask about
    else:
        assert isinstance(claim, ReconstructionClaim)
        clients = [texts.client for texts in claim.clients]
        assert len(set(clients)) == len(clients)
        assert set(clients) <= set(range(CLIENTS))
        words, special = len(view.lab.tokenizer), set(view.lab.tokenizer.all_special_ids)
        for texts in claim.clients:
            assert texts.tokens <= set(range(words)) - special
            assert all(0 <= place < view.facts.max_length for place, _ in texts.placed)
            assert texts.tokens or texts.note


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_it_claims_what_can_be_judged_from_every_seat_that_fits(federation, name, label):
    cls = registry("attacks").load(name)
    attack, view = cls(cls.Config(**SMALL.get(name, {}))), view_of(*federation, PRESETS[label])
    assert isinstance(attack.blind(view.facts), str | None)
    kept = json.dumps(view.facts.to_json())
    claim = attack.run(view, np.random.default_rng(0))
    check(claim, view)
    goals = {MembershipClaim: Goal.MEMBERSHIP, AdapterClaim: Goal.ADAPTER, ReconstructionClaim: Goal.RECONSTRUCTION}
    goals |= {ExtractionClaim: Goal.EXTRACTION}
    tested = isinstance(claim, MembershipClaim) and attack.goal is Goal.VERIFICATION
    assert tested or goals[type(claim)] is attack.goal
    assert PublicFacts.from_json(json.loads(kept)) == view.facts


@pytest.mark.parametrize(("name", "label"), list({name: (name, label) for name, label in PAIRS}.values()))
def test_the_same_coins_give_the_same_claim(federation, name, label):
    cls = registry("attacks").load(name)
    views = [view_of(*federation, PRESETS[label]) for _ in range(2)]  # clients that were asked remember it
    first, again = (cls(cls.Config(**SMALL.get(name, {}))).run(view, np.random.default_rng(5)) for view in views)
    assert fingerprint(first) == fingerprint(again)


def test_an_attack_without_a_run_says_so():
    class Idle(Attack):
        pass

    with pytest.raises(TypeError, match="Idle does not define run"):
        Idle(AttackConfig()).run(None, np.random.default_rng(0))
