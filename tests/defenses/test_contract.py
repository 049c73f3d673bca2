"""What every registered defense keeps to, a plug-in that is installed included."""

import json

import pytest
import torch
from pydantic import ValidationError

from qlorabench.federation.defense import Defense, DefenseConfig
from qlorabench.federation.facts import PublicFacts
from qlorabench.plugins import registry
from qlorabench.seeding import Seed

from ..federation.systems import protocol_of, random_state, system

NAMES = registry("defenses").names()


@pytest.fixture(params=NAMES)
def cls(request):
    return registry("defenses").load(request.param)


@pytest.fixture(params=["shared", "frozen"])
def protocol(request, cls):
    return protocol_of(system((cls.name, {}), head=request.param))


def test_those_that_ship_are_registered():
    assert {"dp-sgd", "frozen-a", "quantized-broadcast", "quantized-upload"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_defense_is_called_what_it_is_registered_as(name):
    found = registry("defenses").load(name)
    assert issubclass(found, Defense)
    assert found.name == name


def test_it_says_what_it_does_and_where_it_comes_from(cls):
    assert cls.__doc__
    assert cls.__doc__ != Defense.__doc__
    assert cls.Config.__doc__
    assert cls.paper
    assert isinstance(cls.version, int)


def test_the_defaults_are_a_config(cls):
    config = cls.Config()
    assert isinstance(config, DefenseConfig)
    assert cls.Config.model_validate(config.model_dump()) == config


def test_every_field_has_a_default_and_a_description(cls):
    for name, field in cls.Config.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_every_number_is_ranged_and_every_word_is_one_of_a_list(cls):
    for name, field in cls.Config.model_json_schema()["properties"].items():
        if field["type"] in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(field), name
        if field["type"] == "string":
            assert field["enum"], name


def test_a_config_cannot_be_changed(cls):
    config = cls.Config()
    for name in cls.Config.model_fields:
        with pytest.raises(ValidationError):
            setattr(config, name, getattr(config, name))


def test_unknown_keys_are_refused(cls):
    with pytest.raises(ValidationError, match="no_such_key"):
        cls.Config.model_validate({"no_such_key": 1})


def test_a_config_survives_json(cls):
    config = cls.Config()
    assert cls.Config.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_what_the_adversary_is_told_is_json(protocol):
    told = protocol.facts.to_json()
    assert PublicFacts.from_json(json.loads(json.dumps(told, allow_nan=False))) == protocol.facts


@pytest.mark.parametrize("way", ["broadcast", "update"])
def test_what_is_sent_arrives_in_shape_and_nearly_as_it_was(protocol, way):
    sent = random_state(protocol.facts.travelling)
    if way == "broadcast":
        data = protocol.encode_broadcast(sent, round=0, seed=Seed(1))
        got = protocol.decode_broadcast(data, round=0)
    else:
        data = protocol.encode_update(sent, round=0, client=1, seed=Seed(1))
        got = protocol.decode_update(data, round=0, client=1)
    assert list(got) == protocol.facts.travelling.names
    for spec in protocol.facts.travelling:
        assert got[spec.name].shape == spec.shape
        assert got[spec.name].dtype == torch.float32
        off = (got[spec.name] - sent[spec.name]).norm() / sent[spec.name].norm()
        assert off == 0 if spec.role == "head" else off < 0.15


def test_the_start_depends_on_the_public_seed_alone(cls, bench):
    spec = system((cls.name, {}))
    first, again = (bench.start(spec, spec.build_defenses()) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(value.any() for name, value in first.items() if name.endswith(".B"))


def test_hooks_do_not_change_what_they_are_given(protocol):
    sent = random_state(protocol.facts.travelling)
    kept = {name: value.clone() for name, value in sent.items()}
    protocol.encode_broadcast(sent, round=0, seed=Seed(1))
    protocol.encode_update(sent, round=0, client=0, seed=Seed(1))
    assert all(torch.equal(sent[name], kept[name]) for name in sent)
