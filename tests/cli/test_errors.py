"""Mistakes are told in one message, with exit code 2 and without a traceback."""

from pathlib import Path

import pytest

from .conftest import SUITE


@pytest.fixture
def complaint(invoke, tmp_path: Path):
    def call(text: str, verb: str = "check") -> str:
        (tmp_path / "bad.yaml").write_text(text)
        done = invoke(verb, "bad.yaml", cwd=tmp_path)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    return call


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("frozen-a,", "frozen-b,", ["systems.hardened.defenses[1]", "Did you mean 'frozen-a'"]),
        ("rank: 4", "rank: 0", ["tasks.opinions.lora.rank", "at least 1, found 0"]),
        ("epsilon: 8", "epsilon: -1", ["epsilon", "at least 0.05, found -1"]),
        ("rounds: 4", "roundz: 4", ["roundz", "Did you mean 'rounds'"]),
        ("kind: sgd", "kind: sdg", ["optimizer.kind", "sgd"]),
        ("[server,", "[sever,", ["threats[0]", "Did you mean 'server'"]),
        ("attacks: [span", "attacks: [spam", ["attacks[0]", "Did you mean 'span'"]),
        ("  plain: {}\n", "", ["systems", "no defenses"]),
        ("source: toy", "source: {csv: {path: none.csv, text: body}}", ["data.source.csv", "label", "missing"]),
        ("bits: 3, rounding", "bits: 3, codebook: fp4, rounding", ["quantized-broadcast", "4"]),
        ("[8, 40, 40]", "[8, 40]", ["tasks.opinions", "3 clients"]),
        ("defenses: [quant", "defenses: [frozen-a, quant", ["hardened.defenses", "listed twice"]),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_right_name(old: str, new: str, said: list[str], complaint) -> None:
    assert old in SUITE
    found = complaint(SUITE.replace(old, new, 1))
    for words in [*said, "line"]:
        assert words in found, found


def test_every_problem_is_told_at_once(complaint) -> None:
    text = SUITE.replace("rank: 4", "rank: 0").replace("frozen-a,", "frozen-b,").replace("rounds: 4", "rounds: no")
    found = complaint(text)
    assert "rank" in found
    assert "frozen-b" in found
    assert "rounds" in found


def test_a_missing_column_lists_the_columns_that_are_there(complaint, tmp_path: Path) -> None:
    (tmp_path / "mail.csv").write_text("body,kind\nhello there,ham\nwin money,spam\n")
    source = "source: {csv: {path: mail.csv, text: bodi, label: kind}}"
    found = complaint(SUITE.replace("source: toy", source), "run")
    assert "bodi" in found
    assert "body" in found
    assert "kind" in found


def test_too_few_rows_are_told_before_anything_is_trained(complaint, tmp_path: Path) -> None:
    found = complaint(SUITE.replace("[8, 40, 40]", "4000"), "run")
    assert "600 rows" in found
    assert not (tmp_path / "runs" / "tiny" / "transcripts").exists()


def test_an_unknown_suite_names_those_that_ship(invoke, tmp_path: Path) -> None:
    done = invoke("check", "quickstrat", cwd=tmp_path)
    assert done.returncode == 2
    assert "quickstart" in done.stderr


def test_a_folder_without_a_journal_is_told(invoke, tmp_path: Path) -> None:
    done = invoke("leaderboard", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "journal" in done.stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'scipy'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "from qlorabench.cli import main\nsys.argv = ['qlorabench', '--help']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip().endswith("[]"), done.stdout


@pytest.mark.parametrize("what", ["attacks", "defenses", "threats", "tasks", "suites"])
def test_listings_name_what_ships(what: str, invoke, tmp_path: Path) -> None:
    names = {
        "attacks": ["span", "calibrated-loss", "smoothing", "extraction", "differential-score"],
        "defenses": ["dp-sgd", "frozen-a", "quantized-broadcast", "quantized-upload"],
        "threats": ["eavesdropper", "malicious-server", "not covered"],
        "tasks": ["rotten-tomatoes", "sms-spam", "csv", "jsonl", "parquet", "hub"],
        "suites": ["quickstart", "toy", "extraction"],
    }[what]
    done = invoke("ls", what, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert name in done.stdout


def test_a_shipped_suite_checks_without_problems(invoke, tmp_path: Path) -> None:
    for name in ("quickstart", "toy", "extraction"):
        done = invoke("check", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "no problems" in done.stdout
