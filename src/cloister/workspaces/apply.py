"""Bring accepted changes into the user's project: all of them, or none.

Rule 1: what is written is the snapshot that was shown. Rule 2: a file that the user has changed meanwhile is merged if
the two changes do not touch, else it is a conflict; with any conflict nothing is written.
Rule 3: before the first write everything that will be replaced is saved, with a list; a failure, or the next command
after a kill, puts it back. Rule 4: no link is followed: another sandbox may work in the project.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from cloister.config.directories import Project
from cloister.errors import CloisterError, WorkspaceError
from cloister.sandbox.workspace import contains
from cloister.workspaces import git, tree, undo
from cloister.workspaces.changes import Change, Snapshot
from cloister.workspaces.store import Stored
from cloister.workspaces.tree import Entry

MERGE_LIMIT_BYTES = 16 << 20


class ConflictError(CloisterError):
    """Changes of the sandbox and of the user meet. Nothing has been written."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    """What one path of the project becomes: the file or link of this name below `root`, or nothing."""

    path: str
    root: str
    entry: Entry | None


def apply(project: Project, stored: Stored, snapshot: Snapshot, accepted: Iterable[Change]) -> list[str]:
    """Apply the changes; returns the paths that were merged. ConflictError names what stands in the way."""
    undo.recover(project.workspace, stored)
    wanted = list(accepted)
    with tempfile.TemporaryDirectory(prefix="merge-", dir=stored.directory) as merged:
        writes, conflicts = [], []
        for change in wanted:
            planned = _plan(project.workspace, snapshot, change, merged)
            if isinstance(planned, str):
                conflicts.append(f"{change.path}: {planned}")
            elif planned is not None:
                writes.append(planned)
        conflicts += _in_the_way(project.workspace, writes)
        if conflicts:
            raise ConflictError(
                "nothing was applied, because these changes meet with yours",
                details="\n".join(sorted(conflicts)),
                resolution=f"bring those by hand (cloister cp {stored.name}:PATH PATH), or undo yours; then try again",
            )
        _execute(project.workspace, stored, writes)
    _begin_anew(stored, snapshot, wanted)
    return sorted(write.path for write in writes if write.root == merged)


def _plan(workspace: str, snapshot: Snapshot, change: Change, merged: str) -> _Write | str | None:
    """What to write; None if the project has it already; a text for a conflict."""
    mine = _look(workspace, change.path)
    if isinstance(mine, str):
        return mine
    if _same(workspace, mine, snapshot.after, change.after):
        return None
    if change.after is not None and change.after.kind == "link":
        reason = _leads_out(workspace, change.path, change.after.target)
        if reason:
            return reason
    wanted = _Write(path=change.path, root=snapshot.after, entry=change.after)
    if _same(workspace, mine, snapshot.before, change.before):
        return wanted
    if mine is not None and mine.kind == "directory" and change.after is not None:
        return wanted  # `_in_the_way` looks whether it will be empty
    if mine is None:
        return "you have deleted it, and the sandbox has changed it"
    if change.before is None:
        return "you have it already, and it is another"
    if change.after is None:
        return "you have changed it, and the sandbox has deleted it"
    if {mine.kind, change.before.kind, change.after.kind} != {"file"}:
        return "you have changed it too"
    return _merge(workspace, snapshot, change, merged)


def _look(workspace: str, path: str) -> Entry | str | None:
    """What the project has at `path`: an entry, nothing, or a text if a link or a file is on the way."""
    try:
        with tree.parent_of(workspace, path) as (directory, name):
            return tree.look(directory, name, path)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None  # a file on the way: `_in_the_way` looks whether it goes
    except OSError as error:
        return f"the way to it leads through a link ({error.strerror})"


def _same(one: str, mine: Entry | None, other: str, theirs: Entry | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    if mine.kind != theirs.kind or mine.kind not in ("file", "link"):
        return False
    if mine.kind == "link":
        return mine.target == theirs.target
    if (mine.size, mine.executable) != (theirs.size, theirs.executable):
        return False
    return tree.same_content(one, other, mine.path)


def _leads_out(workspace: str, path: str, target: str) -> str:
    """Where the project's own links would take a new one (review.py has judged its text)."""
    real = os.path.realpath(os.path.join(workspace, os.path.dirname(path), target))
    return "" if contains(os.path.realpath(workspace), real) else "it is a link that leads out of the project"


def _merge(workspace: str, snapshot: Snapshot, change: Change, merged: str) -> _Write | str:
    clash = "you have changed it too"
    if git.program() is None or change.after is None:
        return clash
    with tempfile.TemporaryDirectory(prefix="three-", dir=merged) as place:
        for name, root in (("mine", workspace), ("base", snapshot.before), ("theirs", snapshot.after)):
            content = tree.read(root, change.path, MERGE_LIMIT_BYTES)
            if b"\0" in content:
                return clash
            with open(os.path.join(place, name), "xb") as file:
                file.write(content)
        with suppress(CloisterError):  # its code is the number of clashes
            text = git.run_on_files(place, ["merge-file", "-p", "--", "mine", "base", "theirs"])
            with tree.parent_of(merged, change.path, make=True) as (directory, name):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
                    file.write(text)
            return _Write(path=change.path, root=merged, entry=change.after)
    return f"{clash}, in the same place"


def _in_the_way(workspace: str, writes: list[_Write]) -> list[str]:
    """Directories and files of the user's where a change needs a file or a directory."""
    going = {write.path for write in writes if write.entry is None}
    conflicts = []
    for write in writes:
        if write.entry is None:
            continue
        mine = _look(workspace, write.path)
        if isinstance(mine, Entry) and mine.kind == "directory":
            inside = tree.entries(os.path.join(workspace, write.path), enter=lambda _: True)
            kept = [path for path, entry in inside.items() if entry.kind != "directory"]
            if any(f"{write.path}/{path}" not in going for path in kept):
                conflicts.append(f"{write.path}: you have a directory there, which is not empty")
        parts = write.path.split("/")
        for count in range(1, len(parts)):
            parent = "/".join(parts[:count])
            above = _look(workspace, parent)
            if isinstance(above, Entry) and above.kind != "directory" and parent not in going:
                conflicts.append(f"{write.path}: you have a file or a link at {parent!r}")
                break
    return conflicts


def _execute(workspace: str, stored: Stored, writes: list[_Write]) -> None:
    order = sorted(writes, key=lambda write: (write.entry is not None, write.path))
    with undo.saved(workspace, stored, [write.path for write in order]):
        for write in order:
            if write.entry is None:
                tree.remove(workspace, write.path)
        for write in order:
            if write.entry is not None:
                tree.replace(write.root, workspace, write.entry)


def _begin_anew(stored: Stored, snapshot: Snapshot, applied: Iterable[Change]) -> None:
    """What has come is no change any more."""
    try:
        for change in applied:
            if change.after is None:
                tree.remove(stored.base, change.path)
        for change in applied:
            if change.after is not None:
                tree.replace(snapshot.after, stored.base, change.after)
    except OSError as error:
        raise WorkspaceError(
            f"the changes are applied, but the workspace could not note it: {error.strerror}",
            resolution="make room; `cloister diff` shows them again, and applying them again changes nothing",
        ) from error
