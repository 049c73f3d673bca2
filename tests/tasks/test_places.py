import socket
import time

import pytest
from huggingface_hub import constants, errors

from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig
from qlorabench.tasks import places
from qlorabench.tasks.places import place_of


def asked(monkeypatch, answer):
    """Let the hub answer every question with the error ``answer``, or with success where it is ``None``."""

    def reply(*_, **__):
        if answer is not None:
            raise answer

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", reply)


def hub_error(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub's own words\nover two lines")
    return error


def cached(monkeypatch, file):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: file)
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (hub_error(errors.RepositoryNotFoundError), "the hub has no such model, or a private one"),
        (hub_error(errors.GatedRepoError), "it is gated"),
        (hub_error(errors.RevisionNotFoundError), "it has no revision 'v9'"),
        (hub_error(errors.EntryNotFoundError), "it has no config.json"),
        (hub_error(errors.HfHubHTTPError), "the hub answers: the hub's own words"),
        (OSError("no route"), r"cannot be reached \(OSError: no route\)"),
    ],
)
def test_what_the_hub_says_becomes_one_message(monkeypatch, tmp_path, answer, said):
    asked(monkeypatch, answer)
    cached(monkeypatch, None)
    with pytest.raises(UserError, match=f"no folder {tmp_path}/some/model, .*{said}.*minilm-l6") as error:
        place_of(BackboneConfig(name="some/model", revision="v9"), base=tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_hub_that_has_the_model_is_asked_for_it(monkeypatch, tmp_path):
    asked(monkeypatch, None)
    cached(monkeypatch, None)
    place = place_of(BackboneConfig(name="some/model", revision="v1"), base=tmp_path)
    assert (place.where, place.folder) == ("some/model", None)
    assert place.options == {"revision": "v1", "trust_remote_code": False}


def test_the_cache_does_where_the_hub_cannot_be_reached(monkeypatch, tmp_path):
    asked(monkeypatch, OSError("no route"))
    cached(monkeypatch, "/cache/config.json")
    assert place_of(BackboneConfig(name="some/model"), base=tmp_path).options["local_files_only"]


def test_nobody_is_asked_where_the_user_forbids_it(monkeypatch, tmp_path):
    asked(monkeypatch, AssertionError("asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached(monkeypatch, None)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        place_of(BackboneConfig(name="some/model"), base=tmp_path)


def test_an_adapter_on_the_hub_is_refused(monkeypatch, tmp_path):
    asked(monkeypatch, None)
    cached(monkeypatch, None)
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda *_, **__: "/cache/adapter_config.json")
    with pytest.raises(UserError, match="PEFT adapter"):
        place_of(BackboneConfig(name="some/model"), base=tmp_path)


def test_a_silent_hub_is_given_up_on_within_seconds(monkeypatch, tmp_path):
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(places, "_HUB_SECONDS", 0.2)
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("a second try"))
        with pytest.raises(UserError, match="the hub cannot be reached"):
            place_of(BackboneConfig(name="some/model"), base=tmp_path)


@pytest.mark.parametrize("name", ["a/b/c", "../model", "models--x", "x" * 300, "with space", "null\0byte", "é/ö"])
def test_a_name_that_can_be_nothing_is_said_to_be(tmp_path, name):
    with pytest.raises(UserError, match="it is no hub name"):
        place_of(BackboneConfig(name=name), base=tmp_path)


def test_a_name_beside_one_of_ours_is_hinted_at(monkeypatch, tmp_path):
    asked(monkeypatch, OSError("no route"))
    with pytest.raises(UserError, match="Did you mean 'minilm-l6'"):
        place_of(BackboneConfig(name="minilm-l-6"), base=tmp_path)
