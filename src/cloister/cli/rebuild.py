"""`cloister rebuild`: make a sandbox that stays anew, from its configuration as it is now. Home and volumes stay."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.cli.run import tell
from cloister.session import up


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rebuild`."""
    options.add_name(parser)
    options.add_overrides(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Stop it if it runs, and start it."""
    started = up.up(
        up.UpOptions(
            name=arguments.sandbox,
            directory=options.directory(arguments),
            overrides=options.overrides(arguments),
            anew=True,
        ),
        os.environ,
        tell,
    )
    print(f"{started.record.name} ({started.project.workspace}): started anew")
    return 0
