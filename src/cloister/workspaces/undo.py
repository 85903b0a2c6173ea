"""Save what is about to be replaced in the user's project, and put it back if not all of it could be.

    <workspace directory>/undo/journal.json    [[path, kind, mode, target], …]; there only while files are replaced
    <workspace directory>/undo/files/          what the project had at those paths

Rule 1: the list is complete on disk before the first file is touched, and goes before what it lists.
Rule 2: putting back is idempotent: it may be killed too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from cloister.errors import WorkspaceError
from cloister.system import files
from cloister.workspaces import tree
from cloister.workspaces.store import Stored
from cloister.workspaces.tree import Entry


@contextmanager
def saved(workspace: str, stored: Stored, paths: Sequence[str]) -> Iterator[None]:
    """Save these paths of the project; put them back if the body fails."""
    shutil.rmtree(stored.undo, ignore_errors=True)
    os.makedirs(f"{stored.undo}/files", mode=0o700)
    there = [entry for path in paths if (entry := _entry(workspace, path)) is not None]
    for failure in tree.copy(workspace, f"{stored.undo}/files", there):
        raise WorkspaceError(f"nothing was applied: {failure}")
    known = {entry.path: entry for entry in there}
    journal = [
        [path, known[path].kind, known[path].executable, known[path].target]
        if path in known
        else [path, "", False, ""]
        for path in paths
    ]
    files.write_atomic(f"{stored.undo}/journal.json", json.dumps(journal).encode())
    try:
        yield
    except BaseException:
        recover(workspace, stored)
        raise
    os.unlink(f"{stored.undo}/journal.json")
    shutil.rmtree(stored.undo, ignore_errors=True)


def recover(workspace: str, stored: Stored) -> bool:
    """Put back what an interrupted command has replaced; tells whether there was any."""
    text = files.read_text(f"{stored.undo}/journal.json")
    if text is None:
        return False
    entries = [(path, kind, executable, target) for path, kind, executable, target in json.loads(text)]
    for path, kind, _, _ in entries:
        if not kind:
            tree.remove(workspace, path)
    for path, kind, executable, target in entries:
        if kind:
            entry = Entry(path=path, kind=kind, executable=executable, target=target)
            tree.replace(f"{stored.undo}/files", workspace, entry)
    os.unlink(f"{stored.undo}/journal.json")
    shutil.rmtree(stored.undo, ignore_errors=True)
    return True


def _entry(workspace: str, path: str) -> Entry | None:
    with (
        suppress(FileNotFoundError, NotADirectoryError),
        tree.parent_of(workspace, path) as (directory, name),
    ):
        found = tree.look(directory, name, path)
        return found if found is not None and found.kind in ("file", "link") else None
    return None
