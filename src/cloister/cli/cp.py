"""`cloister cp SRC DST`: files between the host and a sandbox, one of which is `NAME:PATH`."""

from __future__ import annotations

import argparse
import os
import sys

from cloister.cli.place import workspace_around
from cloister.config import directories
from cloister.config.directories import Project
from cloister.config.wording import visible
from cloister.errors import CloisterError, UsageError
from cloister.session import away
from cloister.workspaces import names, store, transfer
from cloister.workspaces.transfer import Mounted


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copy files into or out of a sandbox's home or workspace, whether it lives or not. NAME:PATH is in the sandbox "
        "(relative to its workspace); a path of the host that holds a colon is written ./a:b."
    )
    parser.add_argument("source", metavar="SRC", help="what to copy: PATH, or NAME:PATH")
    parser.add_argument("destination", metavar="DST", help="where to: NAME:PATH, or PATH")
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")


def execute(arguments: argparse.Namespace) -> int:
    project = directories.project(workspace_around(arguments.workspace), os.environ)
    (origin, source), (target, destination) = (
        transfer.split(arguments.source),
        transfer.split(arguments.destination),
    )
    if (origin is None) is (target is None):
        raise UsageError(
            "one of the two must be NAME:PATH, and the other a path of the host",
            resolution="for example: cloister cp main:dist/app.tar .   or: cloister cp data.csv main:data.csv",
        )
    home = directories.home(os.environ)
    name = names.check(origin if origin is not None else target or "", what="a sandbox")
    with away.reached(project, name) as there:
        places = mounted(project, name) if there is None else away.places(project, home)
        if origin is not None:
            out = transfer.out if there is None else there.out
            left_out = out(places, _of_home(source, home), destination, guarded=project.workspace)
        else:
            into = transfer.into if there is None else there.into
            left_out = into(places, source, _of_home(destination, home))
    for line in left_out:
        sys.stderr.write(f"cloister: {visible(line)}\n")
    return 1 if left_out else 0


def _of_home(path: str, home: str) -> str:
    """`~/…` of the sandbox, whose home has the path of the user's."""
    return home + path[1:] if path == "~" or path.startswith("~/") else path


def mounted(project: Project, name: str) -> Mounted:
    """Where the home and the workspace of an embedded sandbox lie on the host."""
    stored = store.load(project, name)
    if stored is None and not os.path.isdir(project.home):
        raise CloisterError(
            f"{project.workspace!r} has had no sandbox yet", resolution="start one: cloister run -- true"
        )
    home = directories.home(os.environ)
    places = [(project.workspace, project.workspace if stored is None else stored.files)]
    if os.path.isdir(project.home):
        places.append((home, project.home))
    return Mounted(
        places=tuple(sorted(places, key=lambda place: -len(place[0]))), workspace=project.workspace
    )
