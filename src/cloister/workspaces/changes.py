"""What a sandbox has changed in its private workspace: a snapshot, so that what is shown is what is applied.

Rule 1: everything is copied before it is looked at, and only the copy is compared, shown and applied. The sandbox may
be alive, and its files another thing a moment later.
Rule 2: the repository at the top is not part of it: history comes back as a branch (clone.py), never as files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cloister.errors import WorkspaceError
from cloister.workspaces import tree
from cloister.workspaces.store import Stored
from cloister.workspaces.tree import Entry

SIZE_LIMIT_BYTES = 8 << 30
BEFORE, AFTER = "a", "b"  # the directories of a snapshot, named as in a patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file or link, as it began and as it is. None: it was not there, or is not there any more."""

    path: str
    before: Entry | None
    after: Entry | None

    @property
    def kind(self) -> Literal["added", "deleted", "changed"]:
        """In a word."""
        if self.before is None:
            return "added"
        return "deleted" if self.after is None else "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The changes, and a directory that holds what they are between, below BEFORE and AFTER."""

    directory: str
    changes: tuple[Change, ...]

    @property
    def before(self) -> str:
        """Where the files are as they began."""
        return os.path.join(self.directory, BEFORE)

    @property
    def after(self) -> str:
        """Where the files are as the sandbox left them."""
        return os.path.join(self.directory, AFTER)


@contextmanager
def taken(stored: Stored) -> Iterator[Snapshot]:
    """Copy what differs, and remove the copy at the end."""
    old, new = _files(tree.entries(stored.base)), _files(tree.entries(stored.files))
    differing = [
        path
        for path in sorted(old.keys() | new.keys())
        if _differs(stored, old.get(path), new.get(path), path)
    ]
    size = sum(new[path].size for path in differing if path in new)
    if size > SIZE_LIMIT_BYTES:
        raise WorkspaceError(
            f"the sandbox has changed {size >> 30} GiB of files, more than is looked at",
            resolution="remove what need not come back, or copy single files: cloister cp",
        )
    with tempfile.TemporaryDirectory(prefix="snapshot-", dir=stored.directory) as place:
        snapshot = Snapshot(directory=place, changes=())
        for directory, source, entries in (
            (snapshot.before, stored.base, old),
            (snapshot.after, stored.files, new),
        ):
            os.mkdir(directory)
            wanted = [
                entries[path] for path in differing if path in entries and entries[path].kind != "special"
            ]
            for failure in tree.copy(source, directory, wanted):
                raise WorkspaceError(
                    f"the sandbox changes its files at this moment: {failure}",
                    resolution="try again, or stop it first",
                )
        copied = tree.entries(snapshot.after, enter=lambda _: True)
        found = tuple(_change(path, old.get(path), new.get(path), copied) for path in differing)
        yield Snapshot(directory=place, changes=found)


def _files(entries: dict[str, Entry]) -> dict[str, Entry]:
    return {path: entry for path, entry in entries.items() if entry.kind != "directory"}


def _differs(stored: Stored, old: Entry | None, new: Entry | None, path: str) -> bool:
    if old != new or old is None:
        return True
    return old.kind == "file" and not tree.same_content(stored.base, stored.files, path)


def _change(path: str, old: Entry | None, new: Entry | None, copied: dict[str, Entry]) -> Change:
    """What was listed may have changed before it was copied: what it is now is what counts, but for its privileges."""
    after = copied.get(path, new) if new is not None else None
    if after is not None and new is not None and new.privileged:
        after = new
    return Change(path=path, before=old, after=after)
