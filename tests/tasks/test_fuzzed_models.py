"""Model folders that were damaged on their way: each is loaded, or refused in one message."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertModel

from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.inspection import inspect_backbone
from qlorabench.tasks.toy import toy_tokenizer

from ..cases.make_models import bert_config, save

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(BertModel(bert_config()), tmp_path_factory.mktemp("built") / "bert_full", toy_tokenizer())


def damage(data: bytes, kind: str, at: float, piece: bytes) -> bytes:
    """Return ``data`` cut, overwritten or added to, at a share of its length."""
    place = int(at * len(data))
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + piece + data[place:]
    return data[:place] + piece + data[place + len(piece) :]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(FILES),
    kind=st.sampled_from(["cut", "insert", "overwrite", "gone"]),
    at=st.floats(0, 1, exclude_max=True),
    piece=st.binary(min_size=1, max_size=8) | st.sampled_from([b"0", b"-1", b"9" * 12, b"null", b"[]", b"1e999"]),
)
def test_a_damaged_folder_is_loaded_or_refused_in_one_message(
    whole: Path, tmp_path: Path, file: str, kind: str, at: float, piece: bytes
) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    if kind == "gone":
        (folder / file).unlink(missing_ok=True)
    else:
        (folder / file).write_bytes(damage((folder / file).read_bytes(), kind, at, piece))
    config = BackboneConfig(name="damaged")
    for look in (inspect_backbone, load_backbone):
        said = "damaged"
        try:
            look(config, base=tmp_path)
        except UserError as error:
            said = str(error)
        assert "damaged" in said
        assert len(said.splitlines()) <= 30


def test_the_whole_folder_loads(whole: Path) -> None:
    backbone = load_backbone(BackboneConfig(name="bert_full"), base=whole.parent)
    assert all(torch.isfinite(p).all() for p in backbone.model.parameters())
