"""`cloister shell`: your shell, in a sandbox that runs."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.session import attach


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `shell`."""
    options.add_name(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Run a login shell; its exit code is ours."""
    record = options.live(options.Which.of(arguments))
    return attach.execute(record, attach.Command(argv=attach.shell(record)), os.environ)
