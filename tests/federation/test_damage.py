"""A byte that changed on the disk is told when its file is read: no number follows from it."""

import json
import shutil

import pytest
import torch

from qlorabench.errors import UserError
from qlorabench.federation.transcript import FederationStore

from .systems import CLIENTS, ROUNDS, SYSTEMS, files_of, system, train

SPEC = system(*SYSTEMS["quantized-broadcast"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    train(SPEC, out)
    return out


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "out")
    return tmp_path / "out"


def everything(out):
    """All that is ever read of a federation, as bytes and numbers."""
    store = FederationStore(out, SPEC.key)
    adapters = [store.secrets.server_adapter(round) for round in range(ROUNDS + 1)]
    return (
        store.finished,
        json.dumps(store.transcript.facts.to_json(), sort_keys=True),
        store.transcript.messages,
        [store.transcript.data(message) for message in store.transcript.messages],
        [{name: tensor.tolist() for name, tensor in adapter.items()} for adapter in adapters],
        [store.secrets.batches(client) for client in range(CLIENTS)],
    )


@pytest.mark.parametrize(
    "name", ["public.json", "index.jsonl", "rounds.jsonl", "0001.safetensors", "00002.safetensors"]
)
def test_a_flipped_bit_is_told_or_changes_nothing(copy, trained, name):
    (path,) = copy.rglob(name)
    data, whole = path.read_bytes(), everything(trained)
    rng = torch.Generator().manual_seed(0)
    places = [0, len(data) - 2, len(data) - 1, *torch.randint(len(data), (60,), generator=rng).tolist()]
    for place in places:
        bit = int(torch.randint(8, (), generator=rng))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        found, told = read_or_told(copy)
        if told is None:
            # an index that lost its end is that of a federation that is to be trained on
            assert found == whole or not found[0]
        else:
            assert name in told
            assert "Remove that folder" in told


def read_or_told(out):
    try:
        return everything(out), None
    except UserError as error:
        return None, str(error)


@pytest.mark.parametrize("line", range(ROUNDS))
def test_a_lost_round_of_the_secrets_is_told(copy, line):
    path = copy / "secrets" / SPEC.key / "rounds.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    with pytest.raises(UserError, match=r"rounds\.jsonl: .*missing.*Remove that folder"):
        FederationStore(copy, SPEC.key).secrets.batches(0)


@pytest.mark.parametrize("line", [0, 3])
def test_a_lost_line_of_the_index_is_told(copy, line):
    path = copy / "transcripts" / SPEC.key / "index.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    with pytest.raises(UserError, match=r"index\.jsonl: lines are missing"):
        train(SPEC, copy)


@pytest.mark.parametrize("lost", ["rounds.jsonl", "server"])
def test_lost_secrets_are_told(copy, lost):
    path = copy / "secrets" / SPEC.key / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match="Remove that folder"):
        everything(copy)


def test_secrets_behind_their_transcript_are_told(copy):
    index = copy / "transcripts" / SPEC.key / "index.jsonl"
    index.write_bytes(b"".join(index.read_bytes().splitlines(keepends=True)[:-1]))
    (copy / "secrets" / SPEC.key / "rounds.jsonl").unlink()
    with pytest.raises(UserError, match="0 rounds, where the transcript has 2"):
        train(SPEC, copy)


def test_a_damaged_index_that_ends_early_is_trained_to_the_same_bytes(copy, trained):
    path = copy / "transcripts" / SPEC.key / "index.jsonl"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    train(SPEC, copy)
    assert files_of(copy) == files_of(trained)


def test_what_is_removed_is_trained_anew(copy, trained):
    for part in ("transcripts", "secrets"):
        shutil.rmtree(copy / part / SPEC.key)
    train(SPEC, copy)
    assert files_of(copy) == files_of(trained)
