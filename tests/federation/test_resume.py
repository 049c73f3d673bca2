import json

import pytest

from qlorabench.engines.federations import ensure_trained

from .systems import CLIENTS, ROUNDS, SYSTEMS, InProcess, files_of, system, toy_bench, train

SPEC = system(*SYSTEMS["both-directions"])
MESSAGES = ROUNDS * (CLIENTS + 1) + 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    train(SPEC, out)
    return files_of(out)


@pytest.fixture
def copy(undisturbed, tmp_path):
    for name, data in undisturbed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def index_of(out):
    return out / "transcripts" / SPEC.key / "index.jsonl"


def cut(path, *, lines):
    kept = path.read_bytes().splitlines(keepends=True)[:lines]
    path.write_bytes(b"".join(kept))


@pytest.mark.parametrize("lines", [0, 1, CLIENTS + 1, CLIENTS + 2, MESSAGES - 2, MESSAGES - 1])
def test_lost_lines_of_the_index_are_trained_again_to_the_same_bytes(copy, undisturbed, lines):
    cut(index_of(copy), lines=lines)
    train(SPEC, copy)
    assert files_of(copy) == undisturbed


@pytest.mark.parametrize("lost", [1, 150, 400])
def test_an_index_cut_in_the_middle_of_a_line_is_mended(copy, undisturbed, lost):
    data = index_of(copy).read_bytes()
    index_of(copy).write_bytes(data[:-lost])
    train(SPEC, copy)
    assert files_of(copy) == undisturbed


def test_files_of_a_round_that_never_was_are_written_over(copy, undisturbed):
    cut(index_of(copy), lines=CLIENTS + 1)
    for folder in (copy / "transcripts" / SPEC.key / "messages", copy / "secrets" / SPEC.key / "server"):
        max(folder.iterdir()).write_bytes(b"left by another life")
    train(SPEC, copy)
    assert files_of(copy) == undisturbed


def test_a_round_known_to_the_secrets_alone_is_drawn_anew(copy, undisturbed):
    cut(index_of(copy), lines=CLIENTS + 1)
    rounds = copy / "secrets" / SPEC.key / "rounds.jsonl"
    rounds.write_bytes(rounds.read_bytes()[:-30])
    train(SPEC, copy)
    assert files_of(copy) == undisturbed


@pytest.mark.parametrize("jobs", [0, 2, 1 + CLIENTS, 2 * CLIENTS])
def test_an_interrupted_federation_goes_on_where_it_stood(tmp_path, undisturbed, jobs):
    with pytest.raises(KeyboardInterrupt):
        ensure_trained(InProcess(toy_bench(), jobs=jobs), SPEC, tmp_path)
    train(SPEC, tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_only_missing_rounds_are_trained(copy):
    cut(index_of(copy), lines=CLIENTS + 1)
    pool = InProcess(toy_bench())
    ensure_trained(pool, SPEC, copy)
    assert pool.done == 1 + CLIENTS * (ROUNDS - 1)


def test_a_finished_federation_is_left_alone(copy, undisturbed):
    pool = InProcess(toy_bench())
    ensure_trained(pool, SPEC, copy)
    assert pool.done == 0
    assert files_of(copy) == undisturbed


def test_the_same_seed_gives_the_same_bytes_in_another_folder(tmp_path, undisturbed):
    train(SPEC, tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_another_seed_gives_other_bytes(tmp_path, undisturbed):
    train(system(*SYSTEMS["both-directions"], seed=1), tmp_path)
    other = files_of(tmp_path)
    assert set(other) == set(undisturbed)
    alike = {name.rpartition("/")[2] for name in other if other[name] == undisturbed[name]}
    assert alike == {"public.json"}


def test_progress_counts_the_rounds(tmp_path):
    told = []
    ensure_trained(InProcess(toy_bench()), SPEC, tmp_path, progress=told.append)
    assert told == list(range(1, ROUNDS + 1))


def test_a_round_is_on_record_only_when_all_of_it_is_on_the_disk(copy):
    rows = [json.loads(line) for line in index_of(copy).read_text().splitlines()]
    assert all((index_of(copy).parent / "messages" / f"{row['sequence']:05d}.safetensors").exists() for row in rows)
