import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from qlorabench.records.board import GOALS
from qlorabench.records.leaderboard import leaderboard
from qlorabench.report import print_details, print_table, render, render_details
from qlorabench.report._text import byte_text, leak_lines
from tests.records.rows import costs, leak, lost, record

LONG = "dp-sgd-with-frozen-a-and-a-four-bit-broadcast-and-more-of-it"
RECORDS = [
    *costs(),
    leak(0.31, 0.2, 0.42, attack="calibrated-loss", threat="server-secure-aggregation"),
    lost("failed", attack="span"),
    lost("unsupported", goal="adapter", attack="smoothing", note="the broadcast | is exact"),
    *costs(LONG, epsilon=7.95, server=0.61, validated=False),
    leak(0.02, 0.0, 0.1, system=LONG, attack="calibrated-loss", threat="server-secure-aggregation", validated=False),
    lost("timeout", system=LONG, attack="span"),
    leak(1.0, 1.0, 1.0, goal="adapter", attack="smoothing", system=LONG),
    *costs("[red]mark[/red] :boom:", server=0.7),
]


def printed(show, value, *, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show(value, console)
    return console.file.getvalue()


@pytest.mark.parametrize("show", [print_table, print_details])
@pytest.mark.parametrize(("width", "most"), [(100, 100), (160, 112)])
def test_tables_fit_the_terminal_and_112_columns(show, width, most):
    value = leaderboard(RECORDS) if show is print_table else RECORDS
    text = printed(show, value, width=width)
    assert max(map(len, text.splitlines())) <= most
    assert "…" not in text, "nothing is cut off"


def test_intervals_stay_on_one_line_where_there_is_room():
    server, client, *others = costs("frozen-a-upload-8", down=446_000.0, epsilon=7.95)
    rows = [server, replace(client, low=0.8, high=0.84), *others]
    assert "0.840 [0.820, 0.860]  0.820 [0.800, 0.840]" in printed(print_table, leaderboard(rows), width=112)


def test_table_says_everything_without_colour():
    text = printed(print_table, leaderboard(RECORDS))
    for said in (
        "s / t, 1 seed", "0.840 [0.820, 0.860]", "base 0.600", "not learned", "12.3 kB", "512 B", "4.56 MB", "7.95",
        "0.31 [0.20, 0.42]", "+ 1 failed", "calibrated-loss,", "server-secure-aggregation", "not validated + 1 timeout",
        "unsupported", "1.00 [1.00, 1.00]", "[red]mark[/red]", ":boom:", "advantage over the negative control",
        "t/plain: smoothing from client unsupported: the broadcast | is exact",
    ):  # fmt: skip
        assert said in text, said


def test_details_say_value_control_and_note():
    text = printed(print_details, RECORDS)
    for said in ("auc", "0.700", "control 0.500", "0.310 [0.200, 0.420]", "not validated", "timeout", "why timeout"):
        assert said in text, said


def language(system="plain", *, value=41.26, validated=True):
    """The costs of a language model."""
    rows = costs(system, server=value, client=value + 10, validated=validated)
    return [replace(r, task="lm", metric=r.metric.replace("accuracy", "perplexity"), key=f"lm{r.key}") for r in rows]


def test_a_language_models_perplexity_stands_where_accuracy_does():
    board = leaderboard([*RECORDS, *language(), *language("dp-sgd", value=260.0, validated=False)])
    text = printed(print_table, board)
    for said in ("accuracy, server", "perplexity, server", "perplexity, client", "41.3 [41.2, 41.3]", "less is better"):
        assert said in text, said
    assert "perplexity" not in printed(print_table, leaderboard(RECORDS))
    assert "accuracy" not in printed(print_table, leaderboard(language()))
    assert "| perplexity, server | perplexity, client |" in render(board, "markdown")
    rows = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert [(r["utility"], r["utility_server"]) for r in rows[-2:]] == [
        ("perplexity", "41.26"),
        ("perplexity", "260.0"),
    ]
    assert rows[-1]["utility_server_learned"] == "False"


@pytest.mark.parametrize("show", [print_table, print_details])
def test_nothing_is_said_to_be_nothing(show):
    assert "No records yet" in printed(show, leaderboard([]) if show is print_table else [])


def test_markdown_is_one_table_a_task_with_escapes():
    text = render(leaderboard(RECORDS), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}
    assert len(lines) == 2 + 3
    assert "0.31 [0.20, 0.42]<br>+ 1 failed<br>calibrated-loss, server-secure-aggregation" in text
    assert "the broadcast \\| is exact" in text
    assert "no evidence of protection" in text


def test_only_goals_that_an_attack_has_are_columns():
    text = render(leaderboard(RECORDS), "markdown")
    assert "leakage: membership | leakage: adapter |" in text
    for goal in ("reconstruction", "extraction"):
        assert f"leakage: {goal}" not in text
        assert f"leakage: {goal}" not in printed(print_table, leaderboard(RECORDS))


def test_every_goal_at_once_fits_and_is_read_without_breaks_in_its_numbers():
    rows = [leak(0.31, 0.2, 0.42, goal=g, attack=g, threat="server-secure-aggregation") for g in GOALS]
    text = printed(print_table, leaderboard([*costs(), *rows]))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("0.31 [0.20, 0.42]") == len(GOALS)


def test_a_task_without_attacks_has_no_table_of_leaks():
    tables, _, _ = printed(print_table, leaderboard(costs())).partition("accuracy: mean over seeds")
    assert "512 B" in tables
    assert "leakage" not in tables


def test_markdown_of_several_suites_has_a_heading_each():
    board = leaderboard([*RECORDS, record(suite="other", task="sms")])
    text = render(board, "markdown")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### s / t, 1 seed",
        "### other / sms, 1 seed",
    ]


def test_csv_is_raw_and_empty_where_missing():
    first, second, third = csv.DictReader(io.StringIO(render(leaderboard(RECORDS), "csv")))
    assert (first["bytes_down_client_round"], first["epsilon"], first["membership"]) == ("12345.0", "", "0.31")
    assert (first["membership_cells_failed"], first["adapter_state"], first["adapter"]) == ("1", "unsupported", "")
    assert (second["membership_state"], second["utility_server_learned"]) == ("not validated", "False")
    assert third["membership_state"] == "not run"


def test_json_holds_every_field():
    board = json.loads(render(leaderboard(RECORDS), "json"))
    row = board["tasks"][0]["rows"][0]
    assert row["leaks"]["membership"]["cells"] == {"measured": 1, "failed": 1}
    assert row["epsilon"]["value"] is None
    assert board["legend"]


def test_details_are_the_rows_of_the_journal():
    rows = json.loads(render_details(RECORDS, "json"))
    assert rows == [r.to_json() for r in RECORDS if r.kind == "leakage"]
    assert len(list(csv.DictReader(io.StringIO(render_details(RECORDS, "csv"))))) == len(rows)
    assert render_details(RECORDS, "markdown").count("\n|") == len(rows) + 2


@pytest.mark.parametrize("format", ["markdown", "csv", "json"])
def test_nothing_renders(format):
    assert render(leaderboard([]), format).endswith("\n") or format == "csv"
    assert render_details([], format).endswith("\n") or format == "csv"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (999.5, "1.00 kB"), (12_345, "12.3 kB"), (123_456, "123 kB"), (999_600, "1.00 MB"),
     (9_996, "10.0 kB"), (4_560_000, "4.56 MB"), (7.2e9, "7.20 GB"), (7.2e13, "72000 GB")],
)  # fmt: skip
def test_bytes_are_read_by_people(count, said):
    assert byte_text(count) == said


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([leak(0.31, 0.2, 0.42)], ["0.31 [0.20, 0.42]", "loss, client"]),
        ([leak(0.31, 0.2, 0.42), lost("failed", attack="b")], ["0.31 [0.20, 0.42]", "+ 1 failed", "loss, client"]),
        ([lost("failed")], ["failed"]),
        ([lost("timeout")], ["timeout"]),
        ([lost("failed"), lost("failed", attack="b"), lost("timeout", attack="c")], ["2 failed + 1 timeout"]),
        ([lost("unsupported"), lost("unsupported", attack="b")], ["unsupported"]),
        ([lost("unsupported"), lost("failed", attack="b")], ["unsupported + 1 failed"]),
        ([leak(0.0, 0.0, 0.1, validated=False)], ["not validated"]),
        ([leak(0.0, 0.0, 0.1, validated=False), lost("timeout", attack="b")], ["not validated + 1 timeout"]),
        ([leak(None)], ["unscored"]),
        ([leak(0.31, 0.2, 0.42), record(seed=1)], ["0.31 [0.20, 0.42]", "+ 1 of 2 seeds not run", "loss, client"]),
        ([record()], ["-"]),
    ],
)  # fmt: skip
def test_every_state_has_its_words(records, said):
    assert leak_lines(leaderboard(records).tasks[0].rows[0].leaks["membership"]) == said


def test_a_lost_seed_is_said_beside_the_costs():
    failed = record(seed=1, metric="", value=None, status="failed", note="out of memory")
    text = render(leaderboard([*costs(), failed]), "markdown")
    assert "failed (1 of 2 seeds)" in text
    assert "not run (1 of 2 seeds)" in text
    assert "t/plain: failed: out of memory" in text


def test_terminal_needs_no_unicode():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100, color_system=None)
    print_table(leaderboard(RECORDS), console)
    console.file.flush()
    assert b"leakage: membership" in raw.getvalue()


def test_dropout_of_the_clients_stands_in_the_heading():
    def heading(**rates):
        rows = [row for name in ("a", "b") for row in costs(name)]
        rows += [record(system=name, metric="dropout", value=rate) for name, rate in rates.items()]
        return render(leaderboard(rows), "markdown").splitlines()[0]

    assert heading() == "### s / t, 1 seed"
    assert heading(a=0.0, b=0.0) == "### s / t, 1 seed, dropout off"
    assert heading(a=0.1, b=0.1) == "### s / t, 1 seed, dropout 0.1"
    assert heading(a=0.1, b=0.0) == "### s / t, 1 seed, dropout 0.1 in a (off in the others)"
