"""`cloister apply`: bring a sandbox's changes back, after showing them.

A copy's changes come as files, a clone's as a branch.

Rule 1: what is applied is what was shown. Without a terminal only `--yes` applies.
Rule 2: what the host acts on (`.vscode`, `.envrc` …) is named, and comes only with --include-protected.
"""

from __future__ import annotations

import argparse
import os
import sys

from cloister.cli import diff, stored
from cloister.config import directories
from cloister.config.directories import Project
from cloister.config.wording import visible
from cloister.errors import CloisterError
from cloister.workspaces import apply, changes, clone, names, patch, repository, review, undo
from cloister.workspaces.changes import Change
from cloister.workspaces.review import Accepted, Protected, Refused
from cloister.workspaces.store import Stored

SHOWN_COMMITS = 50


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring back what a sandbox has changed in a workspace of its own: files, or a clone's branch."
    )
    stored.configure(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="apply without asking, once shown")
    parser.add_argument(
        "--include-protected",
        action="store_true",
        help="also what your tools execute or obey, such as .vscode",
    )
    parser.add_argument("--force", action="store_true", help="a clone: replace your branch of that name")
    parser.set_defaults(command_name="apply")


def execute(arguments: argparse.Namespace) -> int:
    project, found = stored.named(arguments)
    if found.kind == "clone":
        return _branch(arguments, project, found)
    return _files(arguments, project, found)


def _files(arguments: argparse.Namespace, project: Project, found: Stored) -> int:
    if undo.recover(project.workspace, found):
        sys.stderr.write("cloister: an earlier `apply` was interrupted; what it had written is undone\n")
    with changes.taken(found) as snapshot:
        if not snapshot.changes:
            sys.stdout.write("The sandbox has changed nothing.\n")
            return 0
        diff.show(patch.patch(snapshot))
        sys.stdout.write("\n")
        accepted = _judged(snapshot.changes, include_protected=arguments.include_protected)
        if not accepted:
            raise CloisterError("none of these changes can be applied", resolution="see the reasons above")
        count = f"{len(accepted)} of {len(snapshot.changes)} changes"
        if not _agreed(arguments, f"Apply {count} to {visible(project.workspace)}?"):
            return 1
        merged = apply.apply(project, found, snapshot, accepted)
    for path in merged:
        sys.stdout.write(f"merged with your own changes: {visible(path)}\n")
    sys.stdout.write(f"Applied {count}.\n")
    return 0


def _judged(found: tuple[Change, ...], *, include_protected: bool) -> list[Change]:
    """What may come; what may not is said."""
    accepted = []
    for change in found:
        match review.judge(change):
            case Accepted():
                accepted.append(change)
            case Protected(name=name) if include_protected:
                accepted.append(change)
                sys.stdout.write(
                    f"protected, and included: {visible(change.path)} (your tools act on {visible(name)!r})\n"
                )
            case Protected(name=name):
                sys.stdout.write(
                    f"left out: {visible(change.path)}: your tools act on {visible(name)!r} (--include-protected)\n"
                )
            case Refused(reason=reason):
                sys.stdout.write(f"refused: {visible(change.path)}: {reason}\n")
    return accepted


def _branch(arguments: argparse.Namespace, project: Project, found: Stored) -> int:
    home = directories.home(os.environ)
    into = repository.find(project.workspace)
    commits = clone.commits(found.files, found.branch, found.commit, home=home)
    if clone.is_dirty(found.files, home=home):
        sys.stdout.write(
            "The sandbox has changes that it has not committed: those stay there (see: cloister diff).\n"
        )
    if not commits:
        sys.stdout.write("The sandbox has committed nothing.\n")
        return 0
    diff.show(clone.patch(found.files, found.branch, found.commit, home=home))
    sys.stdout.write("\n")
    for line in commits[:SHOWN_COMMITS]:
        sys.stdout.write(f"{visible(line)}\n")
    for path in clone.changed_paths(found.files, found.branch, found.commit, home=home):
        if review.protected_name(path):
            sys.stdout.write(f"your tools act on this, once you check the branch out: {visible(path)}\n")
    short = names.branch(found.name)
    if not _agreed(arguments, f"Bring {len(commits)} commits to your branch {short!r}?"):
        return 1
    old, new = clone.bring_back(found.files, into, found.branch, home=home, force=arguments.force)
    sys.stdout.write(f"{short} is {new[:12]}{f', was {old[:12]}' if old and old != new else ''}.\n")
    sys.stdout.write(f"To see it: git log {short}   To take it: git merge {short}\n")
    return 0


def _agreed(arguments: argparse.Namespace, question: str) -> bool:
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise CloisterError(
            "nobody can be asked here: standard input is not a terminal",
            resolution=f"read the changes above; to apply them, run: cloister apply {arguments.sandbox} --yes",
        )
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    sys.stdout.write("Nothing was applied.\n")
    return False
