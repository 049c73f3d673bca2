"""The command line."""

from __future__ import annotations


def main() -> None:
    """Run ``qlorabench``; a reader's mistake is told in one message and ends with exit code 2."""
    import sys

    try:
        from qlorabench.cli.app import run

        run()
    except KeyboardInterrupt:  # before or after `run` looks after it
        print("qlorabench: stopped", file=sys.stderr)
        sys.exit(130)
