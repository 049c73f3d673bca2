"""The command line."""

from __future__ import annotations


def main() -> None:
    """Run ``qlorabench``; a reader's mistake is told in one message and ends with exit code 2."""
    from qlorabench.cli.app import run

    run()
