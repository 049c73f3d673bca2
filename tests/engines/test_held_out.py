"""The texts that a reconstruction is held against are like the client's in label and group, where there are such."""

from types import SimpleNamespace

import numpy as np

from qlorabench.engines.measure import _held_out
from qlorabench.scoring.reconstruction import Sentences, judge_reconstruction
from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import Encoded
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.claims import ClientTexts, ReconstructionClaim

TOKENIZER = SimpleNamespace(all_special_ids=[0], decode=lambda ids, skip_special_tokens: " ".join(map(str, ids)))


def scene_of(labels, holdout, *, films=None):
    """Return a scene whose row i is the text of the one token 10 + i."""
    count = len(labels)
    encoded = Encoded(tuple(np.array([0, 10 + i]) for i in range(count)), np.array(labels), np.full(count, 2), 0)
    groups = {} if films is None else {"film": tuple(films)}
    task = PreparedTask(encoded, (), ("a", "b"), (), np.empty(0, int), np.array(list(holdout)), groups=groups)
    return SimpleNamespace(
        task=task, lab=SimpleNamespace(tokenizer=TOKENIZER), column=None if films is None else "film"
    )


def rows_of(lot):
    return [pairs[0][1] - 10 for pairs in lot.tokens]


def test_each_lot_has_the_labels_of_the_client():
    labels = [1] * 9 + [0] + [i % 2 for i in range(200)]
    lots = _held_out(scene_of(labels, range(10, 210)), np.arange(10), Seed(0))
    assert len(lots) == 10
    for lot in lots:
        assert sorted(labels[row] for row in rows_of(lot)) == [0] + [1] * 9
    rows = [row for lot in lots for row in rows_of(lot)]
    assert len(set(rows)) == 100
    assert all(lot.note == "" for lot in lots)


def test_fewer_lots_that_are_alike_beat_many_that_are_not():
    labels = [1] * 10 + [1] * 25 + [0] * 175
    lots = _held_out(scene_of(labels, range(10, 210)), np.arange(10), Seed(0))
    assert [len(lot.texts) for lot in lots] == [10, 10]


def test_what_is_not_alike_is_told():
    labels = [1] * 10 + [1] * 4 + [0] * 46
    lots = _held_out(scene_of(labels, range(10, 60)), np.arange(10), Seed(0))
    assert lots[0].note == "not controlled: label of 6 of 10 control texts"
    truth = Sentences(lots[0].tokens, lots[0].texts)
    rows = judge_reconstruction(ReconstructionClaim(()), [truth], [lots], rng=np.random.default_rng(0))
    assert lots[0].note in rows[0].note
    films = ["x"] * 10 + ["x"] * 7 + ["y"] * 43
    lots = _held_out(scene_of([0] * 60, range(10, 60), films=films), np.arange(10), Seed(0))
    assert lots[0].note == "not controlled: film of 3 of 10 control texts"


def test_texts_of_the_clients_groups_are_taken_first():
    films = ["x"] * 5 + ["y"] * 5 + ["x"] * 8 + ["y"] * 8 + ["z"] * 84
    lots = _held_out(scene_of([0] * 110, range(10, 110), films=films), np.arange(10), Seed(0))
    assert sorted(films[row] for row in rows_of(lots[0])) == ["x"] * 5 + ["y"] * 5
    assert len(lots) == 1


def test_a_client_that_drew_nothing_has_an_empty_control():
    assert [len(lot.texts) for lot in _held_out(scene_of([0] * 5, range(5)), np.arange(0), Seed(0))] == [0]


def test_the_words_of_a_label_claimed_of_a_client_of_that_label_leak_nothing():
    rng = np.random.default_rng(0)
    labels = np.array([1] * 40 + [0, 1] * 100)
    tokens = [np.array([0, *rng.choice(np.arange(10, 20) + 10 * label, 5)]) for label in labels]
    scene = scene_of(labels, range(40, 240))
    encoded = Encoded(tuple(tokens), labels, np.full(len(labels), 6), 0)
    scene.task = PreparedTask(encoded, (), ("a", "b"), (), np.empty(0, int), np.arange(40, 240))
    truth = Sentences(tuple(tuple(enumerate(row[1:].tolist(), 1)) for row in tokens[:40]), ("",) * 40)
    claim = ReconstructionClaim((ClientTexts(0, frozenset(range(20, 30))),))
    control = _held_out(scene, np.arange(40), Seed(0))
    found = judge_reconstruction(claim, [truth], [control], rng=np.random.default_rng(0))[0]
    assert (found.metric, found.value, found.control, found.leakage) == ("token_recall", 1.0, 1.0, 0.0)
