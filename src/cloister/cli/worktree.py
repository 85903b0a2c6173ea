"""`cloister worktree`: list and remove the work trees of a repository, which `cloister dev --worktree NAME` makes.

Rule 1: removing loses no work. What is in no commit, and commits that nothing leads to, are named, and only `--force`
removes them, having shown them. The branch stays unless `--delete-branch`; stashes stay.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cloister.cli.place import named
from cloister.config import directories
from cloister.config.wording import visible
from cloister.errors import CloisterError
from cloister.sandbox import registry
from cloister.workspaces import worktrees
from cloister.workspaces.pending import Pending
from cloister.workspaces.repository import Repository
from cloister.workspaces.worktrees import Worktree

SHOWN = 10


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = commands.add_parser("list", help="the work trees of this repository, and what is in them")
    removing = commands.add_parser("remove", help="remove one, unless that would lose work")
    removing.add_argument("tree", metavar="NAME", help="the work tree")
    removing.add_argument(
        "--force", action="store_true", help="although that loses work, which is shown first"
    )
    removing.add_argument(
        "--delete-branch", action="store_true", help="its branch too, if another has its commits"
    )
    for one in (listing, removing):
        one.add_argument(
            "-C", "--workspace", metavar="DIR", default=".", help="a work tree of the repository"
        )


def execute(arguments: argparse.Namespace) -> int:
    home = directories.home(os.environ)
    repo = worktrees.around(named(arguments.workspace), home)
    if arguments.action == "list":
        return _list(repo, home)
    return _remove(arguments, repo, home)


def _list(repo: Repository, home: str) -> int:
    rows = [("NAME", "BRANCH", "STATE", "PATH")]
    listed = list(worktrees.listed(repo))
    if not listed:
        sys.stdout.write(
            "There is no work tree beside the repository; make one: cloister dev --worktree NAME\n"
        )
        return 0
    for one in listed:
        rows.append((one.name, one.branch or "(detached)", _state(repo, one, home), one.path))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [visible(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, visible(row[3])]) + "\n")
    return 0


def _state(repo: Repository, one: Worktree, home: str) -> str:
    if not one.is_there:
        return "gone"
    live = "live, " if _is_live(one.path) else ""
    try:
        _, found = worktrees.look(repo, one.name, home=home)
    except CloisterError:
        return f"{live}damaged"
    if found is None or found.is_clean:
        return f"{live}clean"
    counts = (("changed", found.changed), ("untracked", found.untracked), ("nested", found.nested))
    return live + ", ".join(
        [f"{len(paths)} {what}" for what, paths in counts if paths]
        + list(found.unfinished)
        + ["detached"] * bool(found.lost)
    )


def _is_live(path: str) -> bool:
    project = directories.project(path, os.environ)
    return any(registry.alive(record.session) for record in registry.records(project.runs))


def _remove(arguments: argparse.Namespace, repo: Repository, home: str) -> int:
    one, found = worktrees.look(repo, arguments.tree, home=home)
    _refuse_use(repo, one)
    if found is not None and not found.is_clean:
        lines = _lines(found)
        if not arguments.force:
            raise CloisterError(
                f"removing {one.path!r} would lose work",
                details="\n".join(lines),
                resolution=f"commit it (cd {one.path!r} && git add -A && git commit), or lose it: "
                f"cloister worktree remove --force {one.name}",
            )
        sys.stdout.write("This work is lost:\n" + "".join(f"  {line}\n" for line in lines))
    only = worktrees.only_on(repo, one.branch, home=home) if one.branch and arguments.delete_branch else []
    if only and not arguments.force:
        raise CloisterError(
            f"deleting the branch {one.branch!r} would lose {len(only)} commits that are on no other branch",
            details="\n".join(visible(line) for line in only[:SHOWN]),
            resolution="push or merge them, or leave --delete-branch out: the branch stays then",
        )
    worktrees.remove(repo, one)
    sys.stdout.write(f"Removed {visible(one.path)}.\n")
    if one.branch and arguments.delete_branch:
        worktrees.delete_branch(repo, one.branch, home=home)
        sys.stdout.write(f"Deleted the branch {visible(one.branch)}.\n")
    elif one.branch:
        unpushed = len(found.unpushed) if found is not None else 0
        kept = f", with {unpushed} commits that are on no remote" if unpushed else ""
        sys.stdout.write(f"The branch {visible(one.branch)} stays{kept}.\n")
    if found is not None and found.stashes:
        sys.stdout.write(f"The repository's {len(found.stashes)} stashes stay (git stash list).\n")
    return 0


def _refuse_use(repo: Repository, one: Worktree) -> None:
    if one.locked is not None:
        raise CloisterError(
            f"the work tree {one.name!r} is locked{': ' + visible(one.locked) if one.locked else ''}",
            resolution=f"unlock it: git worktree unlock {one.path!r}",
        )
    if one.is_there and os.path.realpath(one.path) == repo.work_tree:
        raise CloisterError(
            f"{one.path!r} is where you are",
            resolution=f"go elsewhere first: cd {os.path.dirname(repo.common)!r}",
        )
    if _is_live(one.path):
        raise CloisterError(
            f"a sandbox lives in {one.path!r}", resolution=f"stop it first: cloister stop -C {one.path!r}"
        )


def _lines(found: Pending) -> list[str]:
    parts: tuple[tuple[str, Sequence[str]], ...] = (
        ("changed, not committed", found.changed),
        ("untracked", found.untracked),
        ("a repository of its own, not looked into", found.nested),
        ("unfinished", found.unfinished),
        ("a commit that no branch has", found.lost),
    )
    lines = []
    for what, every in parts:
        lines += [f"{what}: {visible(one)}" for one in every[:SHOWN]]
        if len(every) > SHOWN:
            lines.append(f"… and {len(every) - SHOWN} more, {what}")
    return lines
