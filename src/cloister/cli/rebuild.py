"""`cloister rebuild`: make a sandbox that stays anew, from its configuration as it is now. Home and volumes stay."""

from __future__ import annotations

import argparse

from cloister.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rebuild`."""
    options.add_name(parser)
    options.add_overrides(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Stop it if it runs, and start it."""
    started = options.started(arguments, anew=True)
    print(f"{started.record.name} ({started.project.workspace}): started anew")
    return 0
