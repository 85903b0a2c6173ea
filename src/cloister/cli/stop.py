"""`cloister stop`: end a sandbox that runs. It stays known, with its home: `cloister up` starts it again."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.cli.run import tell
from cloister.config import directories
from cloister.sandbox import catalogue
from cloister.session import stop
from cloister.system import files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `stop`."""
    options.add_name(parser)
    parser.add_argument(
        "--all", action="store_true", help="every sandbox of yours that `up` or `dev` started"
    )
    parser.add_argument(
        "--time",
        metavar="SECONDS",
        type=float,
        default=stop.GRACE_S,
        help="for its processes to end (default: 5)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Stop it; one that does not run is stopped already."""
    state = directories.state_directory(os.environ)
    if arguments.all:
        for project in directories.all_projects(state):
            for kept in catalogue.all_of(project):
                _stop(project, kept.name, arguments.time)
        return 0
    which = options.Which.of(arguments)
    name, project = which.name, which.project()
    if not _stop(project, name, arguments.time):
        if catalogue.load(project, name) is None:
            raise options.not_running(project, name)
        print(f"{name} ({project.workspace}): does not run")
    return 0


def _stop(project: directories.Project, name: str, grace_s: float) -> bool:
    if not os.path.isdir(project.sandboxes):
        return False
    with files.locked(catalogue.lock_of(project, name)):
        record = catalogue.live(project, name)
        if record is None:
            if catalogue.load(project, name) is None:
                catalogue.remove(project, name)  # the lock that was just made
            return False
        stop.end(project, record, tell, grace_s=grace_s)
    print(f"{name} ({record.workspace}): stopped")
    return True
