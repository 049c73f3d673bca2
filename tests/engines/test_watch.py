"""What a run says: text from anywhere is text, and there is a sign of life without a terminal too."""

import io

import pytest
from rich.console import Console

from qlorabench.engines import watch as module
from qlorabench.engines.watch import LineWatch, RichWatch

ODD = "[red]x[/data/y] :warning: \x1b[31m \u202e"
SHOWN = r"[red]x[/data/y] :warning: \x1b[31m \u202e"


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)


@pytest.mark.parametrize("kind", [LineWatch, RichWatch])
def test_text_from_anywhere_is_shown_as_it_is(kind):
    screen = console(terminal=kind is RichWatch)
    with kind(screen) as watch:
        watch.planned(cells=1, done=0)
        watch.say(ODD)
        with watch.federation(ODD, rounds=3) as progress, watch.cell(f"task/{ODD}"), watch.starting(2):
            progress(1)
        watch.committed(f"task/{ODD}")
    said = screen.file.getvalue()
    assert SHOWN in said
    assert f"trained {SHOWN} (3 rounds)" in said
    assert "\x1b[31m" not in said
    assert "\u202e" not in said


def test_without_a_terminal_each_thing_done_has_a_line(monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.0)
    screen = console(terminal=False)
    with LineWatch(screen) as watch:
        watch.planned(cells=3, done=1)
        with watch.starting(2):
            pass
        with watch.federation("plain", rounds=2) as progress:
            progress(1)
        watch.committed("t/plain/utility")
        watch.committed("t/plain/bandwidth")
    assert screen.file.getvalue().splitlines() == [
        "3 cells, 1 of them measured before",
        "starting 2 workers",
        "training plain: round 1 of 2",
        "trained plain (2 rounds)",
        "cell 2 of 3: t/plain/utility",
        "cell 3 of 3: t/plain/bandwidth",
    ]


def test_a_federation_is_not_said_to_be_trained_that_was_there():
    screen = console(terminal=False)
    watch = LineWatch(screen)
    with watch.federation("plain", rounds=4):
        pass
    with watch.federation("half", rounds=4) as progress:
        progress(3)
        progress(4)
    assert screen.file.getvalue().splitlines() == ["plain: trained before", "trained half (4 rounds, 2 of them before)"]
