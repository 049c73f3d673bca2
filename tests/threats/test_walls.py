"""What a threat model does not grant cannot be reached from the view, whatever way an attack looks."""

import numpy as np
import pytest
import torch

from qlorabench.engines.scene import trained_scene
from qlorabench.seeding import Seed
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import draw_challenge
from qlorabench.threats.view import NotGrantedError, View

from ..federation.systems import CLIENTS, ROUNDS, protocol_of
from .reach import memory_of, places_of, reachable
from .seats import CANDIDATES, PRESETS, view_of

PROPERTIES = {
    "broadcasts": Capability.BROADCASTS,
    "released": Capability.RELEASED_ADAPTER,
    "own_updates": Capability.OWN_UPDATES,
    "updates": Capability.OTHERS_UPDATES,
    "aggregates": Capability.AGGREGATE_UPDATE,
    "server_adapters": Capability.SERVER_ADAPTER,
    "own_data": Capability.OWN_DATA,
    "candidates": Capability.CANDIDATES,
    "prompts": Capability.CANARY_PROMPTS,
    "crafted": Capability.CHOSEN_BROADCASTS,
}


@pytest.fixture(scope="module", params=["quantized", "frozen"])
def federation(request, trained):
    return trained[request.param]


@pytest.fixture(scope="module", params=PRESETS)
def threat(request):
    return PRESETS[request.param]


@pytest.fixture(scope="module")
def seat(federation, threat):
    """Return the view, and what can be reached from it."""
    spec, out, _ = federation
    view = view_of(spec, out, threat)
    return view, *reachable(view)


def challenge_of(bench, spec, threat):
    seed = Seed(spec.seed, ("challenge",))
    return draw_challenge(bench.tasks[0], insiders=threat.colluders, most=CANDIDATES, seed=seed)


def test_every_property_is_known_here():
    assert {name for name, value in vars(View).items() if isinstance(value, property)} == set(PROPERTIES)


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_is_there_if_it_is_granted_and_else_says_so(seat, threat, name):
    view, capability = seat[0], PROPERTIES[name]
    assert view.has(capability) == (capability in threat.grants)
    if capability in threat.grants:
        assert name == "crafted" or len(getattr(view, name)) > 0 or name == "prompts"  # the toy task has no canaries
    else:
        with pytest.raises(NotGrantedError, match=rf"the {view.threat.split('(')[0]}.* is not granted {capability}"):
            getattr(view, name)


def test_a_granted_facet_is_all_of_it_and_no_more(seat, threat, federation, bench):
    view, spec = seat[0], federation[0]
    task, grants = bench.tasks[0], threat.grants
    if Capability.BROADCASTS in grants:
        assert [b.round for b in view.broadcasts] == list(range(ROUNDS + 1))
    if Capability.OWN_UPDATES in grants:
        assert [(u.round, u.client) for u in view.own_updates] == [
            (r, c) for r in range(ROUNDS) for c in range(threat.colluders)
        ]
    if Capability.OTHERS_UPDATES in grants:
        assert [(u.round, u.client) for u in view.updates] == [(r, c) for r in range(ROUNDS) for c in range(CLIENTS)]
    if Capability.AGGREGATE_UPDATE in grants:
        assert len(view.aggregates) == ROUNDS
    if Capability.CHOSEN_BROADCASTS in grants:
        assert view.crafted.rounds == ROUNDS
    if Capability.OWN_DATA in grants:
        assert [len(d) for d in view.own_data] == [len(task.client_rows[c]) for c in range(threat.colluders)]
    if Capability.CANDIDATES in grants:
        rows = challenge_of(bench, spec, threat).rows
        assert [i.tolist() for i in view.candidates.ids] == [task.encoded.ids[r].tolist() for r in rows]


def test_what_is_granted_can_be_found_by_the_search(seat, threat, federation):
    """The search that finds no secrets below must be one that finds things."""
    view, blobs, _ = seat
    released = federation[2].transcript.messages[-1]
    if Capability.BROADCASTS in threat.grants:
        assert places_of(federation[2].transcript.data(released), blobs)
    assert places_of(memory_of(next(iter(view.lab.start.values()))), blobs)


def test_texts_of_others_are_out_of_reach(seat, threat, federation, bench):
    _, blobs, _ = seat
    task = bench.tasks[0]
    granted = {task.encoded.ids[r].tobytes() for r in challenge_of(bench, federation[0], threat).rows}
    granted |= {task.encoded.ids[r].tobytes() for c in range(threat.colluders) for r in task.client_rows[c]}
    everywhere = b"".join(blobs.values())
    others = [task.encoded.ids[r] for c in range(threat.colluders, CLIENTS) for r in task.client_rows[c]]
    hidden = [ids for ids in others if ids.tobytes() not in granted]
    assert len(hidden) > 10
    assert not any(ids.tobytes() in everywhere for ids in hidden)


def test_who_is_a_member_is_out_of_reach(seat, threat, federation, bench):
    _, blobs, _ = seat
    challenge = challenge_of(bench, federation[0], threat)
    for secret in (challenge.members, challenge.members.astype(np.int64), challenge.rows):
        assert not places_of(secret.tobytes(), blobs)


def test_updates_of_others_are_out_of_reach(seat, threat, federation):
    _, blobs, _ = seat
    spec, _, store = federation
    if Capability.OTHERS_UPDATES in threat.grants:
        return
    protocol = protocol_of(spec)
    for message in store.transcript.select("up"):
        if message.client >= threat.colluders:
            data = store.transcript.data(message)
            assert not places_of(data, blobs)
            update = protocol.decode_update(data, round=message.round, client=message.client)
            assert not any(places_of(memory_of(value), blobs) for value in update.values())


def test_earlier_broadcasts_are_out_of_reach_of_who_only_gets_the_last(seat, threat, federation):
    _, blobs, _ = seat
    if Capability.BROADCASTS in threat.grants:
        return
    protocol, transcript = protocol_of(federation[0]), federation[2].transcript
    for message in transcript.select("down")[1:-1]:
        data = transcript.data(message)
        assert not places_of(data, blobs)
        held = protocol.decode_broadcast(data, round=message.round)
        assert not any(places_of(memory_of(value), blobs) for value in held.values())


def test_the_aggregate_is_out_of_reach_of_who_is_not_the_server(seat, threat, federation):
    _, blobs, _ = seat
    if Capability.AGGREGATE_UPDATE in threat.grants:
        return
    server = view_of(*federation[:2], PRESETS["server"])
    assert not any(places_of(memory_of(value), blobs) for mean in server.aggregates for value in mean.values())


def server_secrets(federation):
    """Return the factors that the server holds after each round, which no broadcast shows exactly."""
    states = [federation[2].secrets.server_adapter(r) for r in range(1, ROUNDS + 1)]
    return {(r, n): value for r, state in enumerate(states, 1) for n, value in state.items()}


def test_the_servers_adapter_is_out_of_reach_of_who_is_not_the_server(seat, threat, federation):
    view, blobs, _ = seat
    if Capability.SERVER_ADAPTER in threat.grants:
        return
    blobs = {path: blob for path, blob in blobs.items() if not path.startswith("view.lab.model.")}
    held = [value for b in view.broadcasts for value in b.state.values()] if view.has(Capability.BROADCASTS) else []
    for value in server_secrets(federation).values():
        assert not any(torch.equal(value, other) for other in held if other.shape == value.shape)
        assert not places_of(memory_of(value), blobs)


def test_the_model_in_the_lab_comes_with_no_adapter_that_was_not_public(bench, trained):
    spec, out, store = trained["quantized"]
    bench.model(spec).load(store.secrets.server_adapter(ROUNDS))  # as measuring its utility does
    lab = view_of(spec, out, PRESETS["end-user"]).lab
    assert all(torch.equal(value, lab.start[name]) for name, value in lab.model.state().items())


@pytest.mark.parametrize("label", ["end-user", "client"])
def test_the_memo_in_the_lab_holds_no_answer_of_an_adapter_that_was_not_granted(bench, trained, label):
    spec, out, store = trained["quantized"]
    scene = trained_scene(bench, spec, out)
    test = scene.task.encoded.take(scene.task.test)
    secret = scene.lab.logits(store.secrets.server_adapter(ROUNDS), test)
    blobs, _ = reachable(view_of(spec, out, PRESETS[label]))
    assert not places_of(secret.tobytes(), blobs)


def test_writing_to_logits_does_not_change_what_is_computed_next(trained):
    spec, out, _ = trained["quantized"]
    view = view_of(spec, out, PRESETS["end-user"])
    first = view.lab.logits(view.released, view.candidates)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(view.lab.logits(view.released, view.candidates), kept)


def test_no_path_of_the_run_is_in_the_view(seat, federation):
    _, _, texts = seat
    out = str(federation[1])
    assert not {path: text for path, text in texts.items() if out in text or "/secrets/" in text}


def test_the_aggregate_of_secure_aggregation_is_the_mean_of_what_stays_hidden(federation):
    spec, out, store = federation
    view, protocol = view_of(spec, out, PRESETS["server-secure-aggregation"]), protocol_of(spec)
    for round, aggregate in enumerate(view.aggregates):
        sent = [m for m in store.transcript.select("up") if m.round == round]
        updates = [protocol.decode_update(store.transcript.data(m), round=round, client=m.client) for m in sent]
        for name, value in aggregate.items():
            torch.testing.assert_close(value, sum(u[name] for u in updates) / CLIENTS, rtol=1e-5, atol=1e-7)


def test_the_released_adapter_is_the_last_broadcast_decoded(federation):
    spec, out, _ = federation
    released = view_of(spec, out, PRESETS["end-user"]).released
    last = view_of(spec, out, PRESETS["eavesdropper"]).broadcasts[-1]
    assert last.round == ROUNDS
    assert all(torch.equal(released[name], last.state[name]) for name in released)
