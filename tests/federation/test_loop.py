import hashlib
import json

import numpy as np
import pytest
import torch

from qlorabench.errors import UserError
from qlorabench.federation.bench import describe

from .systems import CLIENTS, ROUNDS, SYSTEMS, protocol_of, system, train

NAMES = ["plain", "quantized-broadcast", "everything"]


@pytest.fixture(scope="module", params=[(name, head) for name in NAMES for head in ("shared", "frozen")])
def trained(request, tmp_path_factory, bench):
    """Return the spec, its protocol and its store of a federation, with the model as the last client left it."""
    name, head = request.param
    spec = system(*SYSTEMS[name], head=head)
    store = train(spec, tmp_path_factory.mktemp("out"))
    return spec, protocol_of(spec), store, bench.model(spec).state()


def decoded_updates(protocol, store, round):
    messages = [m for m in store.transcript.select("up") if m.round == round]
    return [protocol.decode_update(store.transcript.data(m), round=round, client=m.client) for m in messages]


def test_every_round_is_a_broadcast_and_an_update_of_each_client(trained):
    _, _, store, _ = trained
    order = [(m.round, m.direction, m.client) for m in store.transcript.messages]
    one_round = [("down", None), *(("up", client) for client in range(CLIENTS))]
    assert order == [(r, *message) for r in range(ROUNDS) for message in one_round] + [(ROUNDS, "down", None)]
    assert [m.sequence for m in store.transcript.messages] == list(range(len(order)))


def test_the_index_tells_size_and_hash_of_what_was_sent(trained):
    _, _, store, _ = trained
    for message in store.transcript.messages:
        data = store.transcript.path_of(message.sequence).read_bytes()
        assert (message.bytes, message.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_server_moves_by_the_mean_of_the_decoded_updates(trained):
    _, protocol, store, _ = trained
    for round in range(ROUNDS):
        before, after = (store.secrets.server_adapter(r) for r in (round, round + 1))
        updates = decoded_updates(protocol, store, round)
        assert len(updates) == CLIENTS
        for name, value in before.items():
            naive = value.double() + sum(u[name].double() for u in updates) / CLIENTS
            torch.testing.assert_close(after[name].double(), naive, rtol=1e-6, atol=1e-8)


def test_every_client_moves_every_b_in_every_round(trained):
    _, protocol, store, _ = trained
    for round in range(ROUNDS):
        for update in decoded_updates(protocol, store, round):
            assert all(value.abs().max() > 0 for name, value in update.items() if name.endswith(".B"))


def test_the_first_broadcast_is_the_public_start(trained, bench):
    spec, protocol, store, _ = trained
    _, start = describe(bench, spec)
    first = store.secrets.server_adapter(0)
    assert set(first) == set(protocol.facts.travelling.names)
    assert all(torch.equal(first[name], start[name]) for name in first)
    assert not any(value.any() for name, value in first.items() if name.endswith(".B"))


def test_what_is_frozen_stays_bit_by_bit_and_never_travels(trained, bench):
    spec, protocol, store, after = trained
    _, start = describe(bench, spec)
    frozen = set(start) - set(protocol.facts.travelling.names)
    roles = {s.role for s in protocol.facts.full if s.name in frozen}
    expected = {"A"} if "frozen-a" in dict(spec.defenses) else set()
    assert roles == expected | ({"head"} if spec.task.head.train == "frozen" else set())
    assert all(torch.equal(after[name], start[name]) for name in frozen)
    assert not any(frozen & set(store.secrets.server_adapter(r)) for r in range(ROUNDS + 1))


def test_the_secrets_know_which_rows_each_client_drew(trained, bench):
    spec, _, store, _ = trained
    for client, rows in enumerate(bench.tasks[spec.seed].client_rows):
        drawn = store.secrets.batches(client)
        assert [len(steps) for steps in drawn] == [spec.task.training.local_steps] * ROUNDS
        assert {row for steps in drawn for batch in steps for row in batch} <= set(rows.tolist())


def test_the_transcript_holds_no_row_and_no_adapter_of_the_server(trained):
    _, _, store, _ = trained
    names = {path.name for path in store.transcript.folder.rglob("*") if path.is_file()}
    assert names == {"public.json", "index.jsonl"} | {f"{i:05d}.safetensors" for i in range(ROUNDS * (CLIENTS + 1) + 1)}
    text = (store.transcript.folder / "public.json").read_text()
    assert "batches" not in json.loads(text)


def test_a_changed_byte_on_the_disk_is_told(tmp_path):
    store = train(system(), tmp_path)
    message = store.transcript.messages[1]
    path = store.transcript.path_of(message.sequence)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"damaged at 00001\.safetensors"):
        store.transcript.data(message)


def test_weighting_by_examples_counts_every_row_alike(tmp_path):
    spec = system(weighting="examples")
    store, protocol = train(spec, tmp_path), protocol_of(spec)
    weights = np.array(protocol.facts.client_rows) / sum(protocol.facts.client_rows)
    assert len(set(weights)) > 1
    before, after = (store.secrets.server_adapter(r) for r in (0, 1))
    updates = decoded_updates(protocol, store, 0)
    for name in before:
        naive = before[name].double() + sum(w * u[name].double() for w, u in zip(weights, updates, strict=True))
        torch.testing.assert_close(after[name].double(), naive, rtol=1e-6, atol=1e-8)
