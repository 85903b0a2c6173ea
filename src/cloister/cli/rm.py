"""`cloister rm`: forget a sandbox that stays. Its home and volumes stay, unless `--volumes` says otherwise."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.cli.run import tell
from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import UsageError
from cloister.sandbox import catalogue, registry
from cloister.session import away, stop
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
    if not os.path.isdir(project.sandboxes):
        if not (arguments.volumes and _leaves_something(project, name)):
            raise options.not_running(project, name)
        files.make_private_directory(project.sandboxes)
    with files.locked(catalogue.lock_of(project, name)):
        record = catalogue.live(project, name)
        is_forgotten = record is None and catalogue.load(project, name) is None
        if is_forgotten and not (arguments.volumes and _leaves_something(project, name)):
            catalogue.remove(project, name)  # the lock that was just made
            raise options.not_running(project, name)
        if record is not None and not arguments.force:
            option = "" if name == catalogue.DEFAULT_NAME else f" --name {name}"
            raise UsageError(
                f"the sandbox {name!r} runs",
                resolution=f"stop it first: cloister stop{option}, or add --force",
            )
        if arguments.volumes:
            _check_volumes(project, name, is_forced=arguments.force)
        if record is not None:
            stop.end(project, record, tell)
        gone = _remove_volumes(project, name) if arguments.volumes else ""
        catalogue.remove(project, name)
    if arguments.volumes:
        catalogue.forget_empty(project)
    print(f"{name} ({project.workspace}): removed{gone}")
    return 0


def _others(project: Project, name: str) -> str:
    return ", ".join(one.name for one in catalogue.all_of(project) if one.name != name)


def _check_volumes(project: Project, name: str, *, is_forced: bool) -> None:
    """Refuse before anything is done."""
    others = _others(project, name)
    if others and store.load(project, name) is None:
        raise UsageError(
            f"the home of {name!r} is also that of {others}",
            resolution="remove those first, or leave --volumes out",
        )
    if not others and any(
        one.name != name and registry.alive(one.session) for one in registry.records(project.runs)
    ):
        raise UsageError(
            f"the home of {name!r} is also that of a `cloister run`, which runs",
            resolution="end that first, or leave --volumes out",
        )
    if not is_forced:
        _check_brought_back(project, name)


def _remove_volumes(project: Project, name: str) -> str:
    """Remove what it keeps; says what went and what stays."""
    away.remove_workspace(project, name)
    store.remove(project, name)
    if others := _others(project, name):
        return f" with its workspace; its home stays, which is also that of {others}"
    away.remove_homes(project)
    files.remove_tree(project.home)
    return " with its home"


def _leaves_something(project: Project, name: str) -> bool:
    """Whether one that is forgotten, or that `cloister run` made, has left what `--volumes` removes."""
    is_main = name == catalogue.DEFAULT_NAME
    return store.load(project, name) is not None or (is_main and os.path.isdir(project.home))


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
