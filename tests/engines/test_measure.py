from collections import Counter

import numpy as np
import pytest

from qlorabench.engines.measure import measure_bandwidth, measure_leakage, measure_utility
from qlorabench.engines.scene import AttackSpec
from qlorabench.errors import UserError
from qlorabench.threats.models import ThreatSpec

from ..federation.systems import CLIENTS, FROZEN, PRIVATE, QUANTIZED, system, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bench):
    spec, out = system(QUANTIZED, head="frozen", rounds=6, local_steps=8), tmp_path_factory.mktemp("out")
    return spec, out, train(spec, out)


def by_metric(rows):
    return {row.metric: row for row in rows}


def test_bandwidth_is_the_bytes_of_the_messages(trained):
    store = trained[2]
    rows = by_metric(measure_bandwidth(store.transcript))
    sizes = {m.sequence: len(store.transcript.data(m)) for m in store.transcript.messages}
    down = [sizes[m.sequence] for m in store.transcript.messages if m.direction == "down"]
    up = [sizes[m.sequence] for m in store.transcript.messages if m.direction == "up"]
    assert rows["bytes_down_client_round"].value == np.mean(down)
    assert rows["bytes_up_client_round"].value == np.mean(up)
    assert rows["bytes_total"].value == sum(up) + CLIENTS * sum(down)
    assert np.mean(down) < 0.3 * np.mean(up)


def test_utility_stands_beside_what_needs_no_training(trained, bench):
    spec, out, _ = trained
    rows = by_metric(measure_utility(bench, spec, out))
    task = bench.tasks[0]
    labels = task.encoded.labels[task.test]
    bare = rows["accuracy_backbone"].value
    assert rows["accuracy_majority"].value in (np.mean(labels), 1 - np.mean(labels))
    assert rows["accuracy_server"].control == max(bare, rows["accuracy_majority"].value)
    assert rows["accuracy_server"].value > bare
    assert rows["gain_server_backbone"].value == pytest.approx(rows["accuracy_server"].value - bare)
    majority = rows["accuracy_majority"].value
    assert rows["gain_client_majority"].value == pytest.approx(rows["accuracy_client"].value - majority)
    gains = [rows[f"gain_server_{base}"].low > 0 for base in ("backbone", "majority")]
    assert rows["accuracy_server"].learned == all(gains)
    assert rows["accuracy_client"].n == len(task.test)
    assert "epsilon" not in rows


def test_an_undefended_broadcast_leaves_no_utility_gap(bench, tmp_path):
    spec = system()
    train(spec, tmp_path)
    rows = by_metric(measure_utility(bench, spec, tmp_path))
    assert rows["accuracy_server"].value == rows["accuracy_client"].value


def test_the_largest_epsilon_of_the_clients_is_told(bench, tmp_path):
    spec = system(FROZEN, PRIVATE)
    train(spec, tmp_path)
    found = by_metric(measure_utility(bench, spec, tmp_path))["epsilon"]
    assert 0.95 * 8 <= found.value <= 8
    assert "largest of 3 clients" in found.note
    assert "delta 1e-05" in found.note


def attack_of(seat, name):
    threat = seat.resolve()
    return AttackSpec(threat=threat, name=name, label=name, config={}, candidates=20, insiders=threat.colluders)


@pytest.mark.parametrize(
    ("name", "seat", "headline"),
    [
        ("calibrated-loss", "end-user", "auc"),
        ("smoothing", "client", "error_removed"),
        ("span", "server", "token_recall"),
    ],
)
def test_an_attack_is_judged_on_its_headline(trained, bench, name, seat, headline):
    spec, out, _ = trained
    rows = measure_leakage(bench, spec, out, attack_of(ThreatSpec(seat), name))
    (found,) = [row for row in rows if row.headline]
    assert found.metric == headline
    assert 0 <= found.leakage_low <= found.leakage <= found.leakage_high <= 1


def test_the_same_cell_measured_again_gives_the_same_numbers(trained, bench):
    spec, out, _ = trained
    attack = attack_of(ThreatSpec("client"), "smoothing")
    runs = [measure_leakage(bench, spec, out, attack) for _ in range(4)]
    assert all(run == runs[0] for run in runs)


def test_what_an_attack_asks_is_counted_whatever_was_asked_before(trained, bench):
    spec, out, _ = trained
    attack = attack_of(ThreatSpec("end-user"), "calibrated-loss")
    counts = [by_metric(measure_leakage(bench, spec, out, attack))["queries"].value for _ in range(2)]
    assert counts[0] == counts[1] > 40  # the released adapter and the bare one, on 40 candidates


def test_rows_that_a_malicious_server_drew_count_as_truth(trained, bench, monkeypatch):
    spec, out, _ = trained
    held = []
    monkeypatch.setattr(
        "qlorabench.engines.measure.judge_reconstruction", lambda claim, truths, *_, **__: held.extend(truths) or []
    )
    monkeypatch.setattr("qlorabench.federation.transcript.Secrets.batches", lambda self, client: [])
    rows = measure_leakage(bench, spec, out, attack_of(ThreatSpec("malicious-server"), "a-stacking"))
    assert by_metric(rows)["queries"].value == CLIENTS * 5
    assert all(len(truth.texts) > 0 for truth in held)
    assert len(held) == CLIENTS


def test_a_reconstruction_is_held_against_many_texts_that_nobody_drew(trained, bench, monkeypatch):
    spec, out, _ = trained
    held = {}
    monkeypatch.setattr(
        "qlorabench.engines.measure.judge_reconstruction",
        lambda claim, truths, controls, **_: held.update(truths=truths, controls=controls) or [],
    )
    measure_leakage(bench, spec, out, attack_of(ThreatSpec("server"), "span"))
    task = bench.tasks[0]
    assert len(held["controls"]) == CLIENTS
    for truth, lots in zip(held["truths"], held["controls"], strict=True):
        assert {len(lot.texts) for lot in lots} == {len(truth.texts)}
        most = len(task.holdout) // len(truth.texts)
        assert len(lots) == min(most, -(-100 // len(truth.texts)))
        texts = [tuple(token for _, token in pairs) for lot in lots for pairs in lot.tokens]
        kept = [tuple(task.encoded.ids[row][1:-1].tolist()) for row in task.holdout]
        assert not Counter(texts) - Counter(kept)  # each held-out row at most once


def test_a_seat_of_more_clients_than_there_are_is_told_to_the_user(trained, bench):
    spec, out, _ = trained
    attack = attack_of(ThreatSpec("colluding-clients", 7), "calibrated-loss")
    with pytest.raises(UserError):
        measure_leakage(bench, spec, out, attack)
