"""What in a work tree is in no commit, or in a commit that no branch has: what removing it would lose.

Rule 1: what cannot be told counts as work: a nested repository is not looked into, it is named.
Rule 2: what git ignores is not work: tools make it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cloister.workspaces import git, repository, scratch
from cloister.workspaces.repository import Repository
from cloister.workspaces.scratch import Scratch

# What git leaves in a work tree's git directory in the middle of something.
_UNFINISHED = {
    "MERGE_HEAD": "a merge", "CHERRY_PICK_HEAD": "a cherry-pick", "REVERT_HEAD": "a revert", "rebase-merge": "a rebase",
    "rebase-apply": "a rebase", "sequencer": "a sequence of picks", "BISECT_LOG": "a bisection",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Paths are relative to the work tree. `lost`: commits (short hash and subject) that nothing else leads to."""

    changed: tuple[str, ...]
    untracked: tuple[str, ...]
    nested: tuple[str, ...]
    unfinished: tuple[str, ...]
    lost: tuple[str, ...]
    unpushed: tuple[str, ...]  # on the branch, and on no remote: the branch keeps them
    stashes: tuple[str, ...]  # of the repository: removing a work tree keeps them

    @property
    def is_clean(self) -> bool:
        """Whether removing the work tree loses nothing."""
        return not (self.changed or self.untracked or self.nested or self.unfinished or self.lost)


def look(found: Repository, *, home: str) -> Pending:
    """Look at one work tree."""
    nested = tuple(repository.nested(found.work_tree))
    with scratch.borrowing(found, home=home) as ours:
        changed, untracked = _status(ours, found.work_tree)
        branch = repository.head(found)
        lost = () if branch else _log(ours, ["HEAD", "--not", "--branches", "--tags", "--remotes"])
        unpushed = _log(ours, [branch, "--not", "--remotes"]) if branch and _exists(ours, branch) else ()
    return Pending(
        changed=changed,
        untracked=tuple(path for path in untracked if path.rstrip("/") not in nested),
        nested=nested,
        unfinished=tuple(
            text for name, text in _UNFINISHED.items() if os.path.lexists(f"{found.git_directory}/{name}")
        ),
        lost=lost,
        unpushed=unpushed,
        stashes=_stashes(found),
    )


def _status(ours: Scratch, work_tree: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    output = git.run(
        ours,
        [
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=all",
            "--ignore-submodules=all",
        ],
        work_tree=work_tree,
    )
    changed: list[str] = []
    untracked: list[str] = []
    for record in filter(None, output.split(b"\0")):
        (untracked if record[:2] == b"??" else changed).append(os.fsdecode(record[3:]))
    return tuple(changed), tuple(untracked)


def _log(ours: Scratch, revisions: list[str]) -> tuple[str, ...]:
    output = git.run(
        ours, ["log", "--no-decorate", "--format=%h %s", *revisions, "--"], optional_codes=(128,)
    )
    return tuple(output.decode("utf-8", "replace").splitlines())


def _exists(ours: Scratch, branch: str) -> bool:
    return bool(git.run(ours, ["rev-parse", "--verify", "--quiet", branch], optional_codes=(1,)))


def _stashes(found: Repository) -> tuple[str, ...]:
    text = repository.read_small(f"{found.common}/logs/refs/stash") or b""
    return tuple(line.rpartition("\t")[2] for line in text.decode("utf-8", "replace").splitlines() if line)
