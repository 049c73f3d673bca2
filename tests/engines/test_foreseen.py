"""A hash that is foreseen is the one that loading gives, or nobody foresees it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from qlorabench.engines import foreseen
from qlorabench.engines.foreseen import Foreseen, source_of
from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig


def backbone(sha256):
    return SimpleNamespace(name="b", sha256=sha256 * 64)


def refuse():
    raise AssertionError("nothing was to be loaded")


def test_what_was_loaded_before_is_known_without_loading(tmp_path):
    memory = tmp_path / "inputs.json"
    assert Foreseen("files", memory, lambda: backbone("a")).sha256 == "a" * 64
    assert Foreseen("files", memory, refuse).sha256 == "a" * 64
    assert Foreseen("other files", memory, lambda: backbone("b")).sha256 == "b" * 64
    assert Foreseen("files", memory, refuse).sha256 == "a" * 64


def test_a_backbone_that_is_not_on_this_machine_alone_is_loaded_each_time(tmp_path):
    memory = tmp_path / "inputs.json"
    for sha256 in "ab":
        assert Foreseen(None, memory, lambda sha256=sha256: backbone(sha256)).sha256 == sha256 * 64
    assert not memory.exists()


def test_other_weights_from_the_same_source_are_an_error(tmp_path):
    memory = tmp_path / "inputs.json"
    assert Foreseen("files", memory, lambda: backbone("a")).loaded
    with pytest.raises(UserError, match=r"Remove .*inputs\.json"):
        Foreseen("files", memory, lambda: backbone("b")).loaded  # noqa: B018


@pytest.mark.parametrize("damage", ["", "[1]", '{"files": 3}', '{"files": "short"}', "{"])
def test_a_damaged_memory_is_no_memory(tmp_path, damage):
    memory = tmp_path / "inputs.json"
    memory.write_text(damage)
    assert Foreseen("files", memory, lambda: backbone("a")).sha256 == "a" * 64
    assert json.loads(memory.read_text())["files"] == "a" * 64


def source(folder, name="model", **more):
    return source_of(BackboneConfig(name=name, **more), base=folder, objective="classification")


def test_a_source_changes_with_whatever_the_weights_follow_from(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    first = source(tmp_path)
    assert source(tmp_path) == first
    (folder / "model.safetensors").write_bytes(b"Weights")  # as many bytes
    other = source(tmp_path)
    (folder / "vocab.txt").write_text("word")
    seen = {first, other, source(tmp_path), source(tmp_path, bits=8), source(tmp_path, "toy")}
    monkeypatch.setattr(foreseen, "code", lambda parts: "other code")
    seen.add(source(tmp_path))
    monkeypatch.setattr(foreseen.metadata, "version", lambda name: "0")
    seen.add(source(tmp_path))
    assert len(seen) == 7


def test_a_model_of_the_hub_has_no_source(tmp_path: Path):
    assert source(tmp_path, "owner/model") is None
