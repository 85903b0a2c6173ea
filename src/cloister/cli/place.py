"""Where a command works: the workspace around the current directory, or around the one that -C names."""

from __future__ import annotations

import os

from cloister.config import directories
from cloister.errors import UsageError, WorkspaceError
from cloister.sandbox import workspace


def named(directory: str) -> str:
    """The text of -C. UsageError if it is empty, as an unset variable of a script leaves it."""
    if not directory:
        raise UsageError(
            "-C: the directory is empty", resolution="name one, or leave -C out: it is then here"
        )
    return directory


def workspace_around(directory: str, *, may_be_gone: bool = False) -> str:
    """The workspace of `directory`. WorkspaceError if there is no such directory, unless it may be gone."""
    try:
        start = os.path.realpath(named(directory))
    except FileNotFoundError:
        raise WorkspaceError(
            "the current directory does not exist any more",
            resolution="cd into a project, or name one with -C DIR",
        ) from None
    if not may_be_gone and not os.path.isdir(start):
        found = "is not a directory" if os.path.lexists(start) else "does not exist"
        raise WorkspaceError(f"the workspace {start!r} {found}", resolution="name a directory with -C DIR")
    return workspace.find(start, directories.home(os.environ))
