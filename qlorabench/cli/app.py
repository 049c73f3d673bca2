"""The verbs: check, run, ls, leaderboard. Everything heavy is imported inside a verb."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from qlorabench.cli.stopping import farewell, stoppable
from qlorabench.errors import UserError
from qlorabench.terminal import plain

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Attack federated LoRA fine-tuning: quantized broadcasts, frozen factors, DP-SGD.\n\n"
    "Examples:\n\n"
    "  qlorabench run quickstart\n\n"
    "  qlorabench check my-suite.yaml\n\n"
    "  qlorabench leaderboard runs/quickstart --format markdown",
)

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="a suite file, or the name of one that ships")]


class Listing(StrEnum):
    """What ``ls`` can list."""

    ATTACKS = "attacks"
    DEFENSES = "defenses"
    THREATS = "threats"
    TASKS = "tasks"
    SUITES = "suites"


class Format(StrEnum):
    """How ``leaderboard`` writes."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


def run() -> None:
    """Run the application; exit code 2 and one message for what a reader can mend, 128 + its number for a signal."""
    with stoppable() as came:
        try:
            app()
        except UserError as error:
            if not came:
                print(f"qlorabench: {plain(str(error))}", file=sys.stderr)
                sys.exit(2)
        except (SystemExit, KeyboardInterrupt):
            if not came:
                raise
    # whatever the signal was turned into on its way, it is what ended the command
    print(f"\nqlorabench: {farewell()}", file=sys.stderr)
    sys.exit(128 + came[0])


@app.command()
def check(
    suite: SuiteArgument,
    offline: Annotated[bool, typer.Option("--offline", help="open no data and no backbone")] = False,
) -> None:
    """Say every problem of a suite at once; else print its matrix and what would be trained.

    The files of its plug-ins are run for it, wherever they lie.
    """
    from qlorabench.cli.check import print_plan

    print_plan(suite, offline=offline)


@app.command(name="run")
def run_suite(
    suite: SuiteArgument,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="folder to write to [default: runs/<suite>]")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="cells whose path matches, as in '*/server/*'")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="seeds in place of the suite's, as in 0,1,2")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="processes [default: one for each core]")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="print the whole traceback of what fails")] = False,
) -> None:
    """Train what has to be trained, attack it, and write records; the same command resumes."""
    from qlorabench.cli.run import run_and_report

    raise typer.Exit(
        run_and_report(suite, out=_folder(out), only=only, workers=workers, debug=debug, seeds=_seeds(seeds))
    )


def _seeds(said: str | None) -> list[int] | None:
    """Return the seeds of a list such as ``0,1,2``; raises UserError where it is none."""
    if said is None:
        return None
    parts = [part.strip() for part in said.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise UserError(f"--seeds {said[:200]!r} is no list of whole numbers, as in 0,1,2")
    return [int(part) for part in parts]


def _folder(out: str | None) -> Path | None:
    """Return where to write to; raises UserError where that can be no folder."""
    if out is None:
        return None
    try:
        if not out.strip():
            raise ValueError("it is empty")
        Path(out).exists()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--out {out[:200]!r} can be no folder: {why}") from error
    return Path(out)


@app.command(name="ls")
def list_known(what: Annotated[Listing, typer.Argument(help="what to list")]) -> None:
    """List what there is, with a card for each threat model."""
    from qlorabench.cli.ls import print_listing

    print_listing(what.value)


@app.command()
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="folders with a records.jsonl")],
    format: Annotated[Format, typer.Option(help="how to write it")] = Format.TABLE,
    details: Annotated[bool, typer.Option(help="list every leakage row behind the table")] = False,
) -> None:
    """Build the leaderboard from the journals of one or more runs."""
    from qlorabench.cli.board import print_board

    print_board(folders, format=format.value, details=details)
