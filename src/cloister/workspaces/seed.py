"""Fill a fresh workspace from the project: which files go in, and which never do.

Rule 1: what scan.py would mask in a bound workspace is not copied: a copy cannot be masked later.
Rule 2: what git ignores is not copied, for it is made by tools or is the user's alone. Without a repository, what
tools make is known by its name (protect.SKIPPED).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cloister.errors import RepositoryError
from cloister.sandbox import protect
from cloister.sandbox.protect import Protection
from cloister.sandbox.workspace import contains
from cloister.workspaces import git, repository, scratch, tree
from cloister.workspaces.repository import Repository
from cloister.workspaces.tree import Entry

SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a project goes into a workspace. `removed`: tracked files that are not there any more."""

    entries: tuple[Entry, ...]
    removed: tuple[str, ...]
    masked: tuple[str, ...]


def select(workspace: str, found: Protection, home: str, repo: Repository | None) -> Selection:
    """Choose among the files of `workspace`, which `found` is the scan of."""
    tracked, wanted = (frozenset[str](), None) if repo is None else _by_git(repo, home)
    there = tree.entries(workspace, enter=_enter(wanted, found))
    masked = tuple(
        os.path.relpath(path, workspace)
        for path in (*found.masked_files, *found.masked_directories)
        if wanted is None or any(contains(os.path.relpath(path, workspace), one) for one in wanted)
    )
    chosen = [
        entry
        for path, entry in there.items()
        if entry.kind in ("file", "link") and (wanted is None or path in wanted)
    ]
    removed = tuple(sorted(path for path in tracked if not os.path.lexists(f"{workspace}/{path}")))
    return Selection(entries=tuple(chosen), removed=removed, masked=masked)


def repository_of(workspace: str) -> Repository | None:
    """The repository that `workspace` is the top of, if it is one that can be read, and git is there to read it."""
    if git.program() is None:
        return None
    try:
        return repository.find(workspace)
    except RepositoryError:
        return None


def notes(selection: Selection, failures: Iterable[str]) -> list[str]:
    """What the user should know of what was left out."""
    said = list(failures)
    if selection.masked:
        shown = ", ".join(selection.masked[:SHOWN_NAMES]) + (
            " …" if len(selection.masked) > SHOWN_NAMES else ""
        )
        said.append(f"files that look like secrets are left out: {shown} (`[sandbox] unmask` lets them in)")
    return said


def _enter(wanted: frozenset[str] | None, found: Protection) -> Callable[[str], bool]:
    masked = {
        os.path.relpath(path, found.workspace) for path in (*found.masked_files, *found.masked_directories)
    }
    directories = None if wanted is None else {parent for path in wanted for parent in _parents(path)}

    def enter(path: str) -> bool:
        name = os.path.basename(path)
        if path in masked or name == ".git":
            return False
        if directories is None or wanted is None:
            return name not in protect.SKIPPED
        return path in wanted or path in directories

    return enter


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _by_git(repo: Repository, home: str) -> tuple[frozenset[str], frozenset[str]]:
    """What git tracks, and that with what it neither tracks nor ignores."""
    with scratch.borrowing(repo, home=home) as ours:
        tracked = _paths(git.run(ours, ["ls-files", "-z", "--cached"], work_tree=repo.work_tree))
        others = _paths(
            git.run(ours, ["ls-files", "-z", "--others", "--exclude-standard"], work_tree=repo.work_tree)
        )
    return tracked, tracked | others


def _paths(output: bytes) -> frozenset[str]:
    return frozenset(os.fsdecode(path).rstrip("/") for path in output.split(b"\0") if path)
