"""Show changes as a patch, as `git diff` would write it; without git on the host, text files only.

Rule 1: git compares two directories of ours, in no repository: nothing of the sandbox's configures it.
"""

from __future__ import annotations

import difflib
import os

from cloister.workspaces import git, tree
from cloister.workspaces.changes import AFTER, BEFORE, Change, Snapshot

TEXT_LIMIT_BYTES = 1 << 20
LINES_LIMIT = 20_000  # difflib's time grows with the square
_OPTIONS = (
    "--no-index",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-prefix",
    "--no-renames",
    "--binary",
)


def patch(snapshot: Snapshot) -> bytes:
    """All changes. It can be applied with `git apply`."""
    if not snapshot.changes:
        return b""
    if git.program() is None:
        return b"".join(_plain(snapshot, change) for change in snapshot.changes)
    return git.run_on_files(snapshot.directory, ["diff", *_OPTIONS, "--", BEFORE, AFTER], optional_codes=(1,))


def _plain(snapshot: Snapshot, change: Change) -> bytes:
    old, new = _text(snapshot.before, change), _text(snapshot.after, change)
    if old is None or new is None:
        return f"{change.kind}: {change.path}\n".encode("utf-8", "surrogateescape")
    names = [
        "/dev/null" if entry is None else f"{side}/{change.path}"
        for side, entry in ((BEFORE, change.before), (AFTER, change.after))
    ]
    lines = difflib.unified_diff(old, new, names[0], names[1])
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    ).encode("utf-8", "surrogateescape")


def _text(root: str, change: Change) -> list[str] | None:
    """The lines of one side; None if it is no text that can be compared."""
    path = os.path.join(root, change.path)
    if not os.path.lexists(path):
        return []
    if os.path.islink(path):
        return [os.readlink(path)]
    if os.path.getsize(path) > TEXT_LIMIT_BYTES:
        return None
    content = tree.read(root, change.path, TEXT_LIMIT_BYTES)
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    return None if b"\0" in content or len(lines) > LINES_LIMIT else lines
