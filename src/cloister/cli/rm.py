"""`cloister rm`: forget a sandbox that stays. Its home and volumes stay, unless `--volumes` says otherwise."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.cli.run import tell
from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import UsageError
from cloister.sandbox import catalogue
from cloister.session import away, prepare, stop
from cloister.system import files
from cloister.workspaces import changes, clone, names, store


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rm`."""
    options.add_name(parser)
    parser.add_argument(
        "-f", "--force", action="store_true", help="although it runs, or has changes that would be lost"
    )
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="remove what it keeps, too: a workspace of its own, and the project's home in the sandbox",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Forget it. Nothing of the workspace is touched."""
    which = options.Which.of(arguments)
    name, project = which.name, which.project()
    # `cloister run`, and an `up` in vain, leave a workspace of the sandbox's own, too.
    has_workspace = arguments.volumes and store.load(project, name) is not None
    if not has_workspace and not os.path.isdir(project.sandboxes):
        raise options.not_running(project, name)
    files.make_private_directory(project.sandboxes)
    with files.locked(catalogue.lock_of(project, name)):
        record = catalogue.live(project, name)
        if record is None and catalogue.load(project, name) is None and not has_workspace:
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
            if not arguments.force:
                _check_brought_back(project, name)
            _remove_home(project, name)
            away.remove_workspace(project, name)
            store.remove(project, name)
        catalogue.remove(project, name)
    if arguments.volumes:
        catalogue.forget_empty(project)
    print(f"{name} ({project.workspace}): removed{' with its home' if arguments.volumes else ''}")
    return 0


def _check_brought_back(project: Project, name: str) -> None:
    """What the sandbox has done in a workspace of its own is not lost by the way."""
    stored = store.load(project, name)
    if stored is None:
        return
    away.refresh(project, name, tell)
    if stored.kind == "clone":
        branch = f"refs/heads/{names.branch(name)}"
        work = clone.holds_work(stored.files, project.workspace, branch, home=directories.home(os.environ))
    else:
        with changes.taken(stored) as snapshot:
            work = bool(snapshot.changes)
    if work:
        raise UsageError(
            f"the workspace of {name!r} has changes, which would be lost",
            resolution=f"see them: cloister diff {name}   bring them back: cloister apply {name}   or add --force",
        )


def _remove_home(project: Project, name: str) -> None:
    others = [one.name for one in catalogue.all_of(project) if one.name != name]
    if others:
        raise UsageError(
            f"the home of {name!r} is also that of {', '.join(others)}",
            resolution="remove those first, or leave --volumes out",
        )
    away.remove_homes(project)
    files.remove_tree(project.home)
