"""`cloister diff`: what a sandbox has changed in its private workspace, as a patch.

Rule 1: on a terminal every control and invisible character is escaped; elsewhere the bytes are those of the patch, so
that `git apply` takes them.
"""

from __future__ import annotations

import argparse
import sys

from cloister.cli import stored
from cloister.config.wording import visible
from cloister.workspaces import changes, patch


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what a sandbox has changed in a workspace of its own, since it began or was last applied."
    )
    stored.configure(parser)
    parser.add_argument("--names", action="store_true", help="only the names of what has changed")
    parser.set_defaults(command_name="diff")


def execute(arguments: argparse.Namespace) -> int:
    _, found = stored.named(arguments)
    with changes.taken(found) as snapshot:
        if arguments.names:
            for change in snapshot.changes:
                sys.stdout.write(f"{change.kind:8} {visible(change.path)}\n")
        else:
            show(patch.patch(snapshot))
    return 0


def show(text: bytes) -> None:
    """Print a patch that an agent has written."""
    if sys.stdout.isatty():
        sys.stdout.write(visible(text.decode("utf-8", "backslashreplace")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
