"""The private workspace that a command is about, with what its sandbox has made of it."""

from __future__ import annotations

import argparse
import os

from cloister.cli.place import workspace_around
from cloister.cli.run import tell
from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import WorkspaceError
from cloister.session import away
from cloister.workspaces import store
from cloister.workspaces.store import Stored


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments that name it."""
    parser.add_argument(
        "sandbox", metavar="NAME", nargs="?", default="main", help="the sandbox (default: main)"
    )
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")


def named(arguments: argparse.Namespace) -> tuple[Project, Stored]:
    """The project and the workspace. WorkspaceError if the sandbox works in the project itself."""
    project = directories.project(workspace_around(arguments.workspace), os.environ)
    found = store.load(project, arguments.sandbox)
    if found is not None:
        away.refresh(project, found.name, tell)
        return project, found
    others = ", ".join(one.name for one in store.listed(project))
    raise WorkspaceError(
        f"no sandbox {arguments.sandbox!r} of {project.workspace!r} has a workspace of its own",
        details=f"these have: {others}"
        if others
        else 'A sandbox with `workspace = "bind"` writes in the project itself.',
        resolution=f"name one of them: cloister {arguments.command_name} NAME"
        if others
        else "see its changes: git diff",
    )
