"""`cloister rm`: forget a sandbox that stays. Its home and volumes stay, unless `--volumes` says otherwise."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.cli.run import tell
from cloister.config.directories import Project
from cloister.errors import UsageError
from cloister.sandbox import catalogue
from cloister.session import prepare, stop
from cloister.system import files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rm`."""
    options.add_name(parser)
    parser.add_argument("-f", "--force", action="store_true", help="stop it first, if it runs")
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="remove what it keeps, too: with a project's last sandbox, the project's home in the sandbox",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Forget it. Nothing of the workspace is touched."""
    which = options.Which.of(arguments)
    name, project = which.name, which.project()
    if not os.path.isdir(project.sandboxes):
        raise options.not_running(project, name)
    with files.locked(catalogue.lock_of(project, name)):
        record = catalogue.live(project, name)
        if record is None and catalogue.load(project, name) is None:
            catalogue.remove(project, name)  # the lock that was just made
            raise options.not_running(project, name)
        if record is not None:
            if not arguments.force:
                option = "" if name == catalogue.DEFAULT_NAME else f" --name {name}"
                raise UsageError(
                    f"the sandbox {name!r} runs",
                    resolution=f"stop it first: cloister stop{option}, or add --force",
                )
            stop.stop(record)
            prepare.clean_up(project.shared, tell)
        if arguments.volumes:
            _remove_home(project, name)
        catalogue.remove(project, name)
    print(f"{name} ({project.workspace}): removed{' with its home' if arguments.volumes else ''}")
    return 0


def _remove_home(project: Project, name: str) -> None:
    others = [one.name for one in catalogue.all_of(project) if one.name != name]
    if others:
        raise UsageError(
            f"the home of {name!r} is also that of {', '.join(others)}",
            resolution="remove those first, or leave --volumes out",
        )
    files.remove_tree(project.home)
