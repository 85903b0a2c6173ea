"""`cloister up`: start a sandbox that stays, or make the one that stays anew if its configuration has changed."""

from __future__ import annotations

import argparse

from cloister.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `up`."""
    parser.epilog = (
        "Enter it with: cloister exec, cloister shell, cloister dev. It stays until: cloister stop."
    )
    options.add_name(parser)
    options.add_overrides(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Start it, and say what happened."""
    started = options.started(arguments)
    said = {
        "started": "started",
        "running": "runs already, with this configuration",
        "recreated": "started anew: its configuration or image had changed",
    }
    print(f"{started.record.name} ({started.project.workspace}): {said[started.how]}")
    return 0
