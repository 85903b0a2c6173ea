"""What lies in the home and the workspace, before and after, so that what was written can be told.

Rule 1: change times decide (ctime): a program can set back the others.
Rule 2: below directories of packages nothing is looked at: what lies there belongs to them.
Rule 3: bounded, and no link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloister.depaudit import places
from cloister.depaudit.observation import Written

FILES_LIMIT = 100_000
DIRECTORIES_LIMIT = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file, link or other entry that is no directory."""

    inode: int
    size: int
    mode: int
    changed_ns: int


def take(roots: Mapping[str, str]) -> dict[str, File]:
    """Everything below some directories. `roots`: how a root is shown ("~", ".") → where it is."""
    found: dict[str, File] = {}
    for shown, directory in roots.items():
        for path, file in _walk(directory, shown):
            found[path] = file
            if len(found) >= FILES_LIMIT:
                return found
    return found


def difference(before: Mapping[str, File], after: Mapping[str, File]) -> tuple[Written, ...]:
    """What is new, changed or gone."""
    found = []
    for path, file in sorted(after.items()):
        known = before.get(path)
        if known != file:
            how = "new" if known is None else "changed"
            found.append(Written(path=path, how=how, executable=_is_program(file)))
    found += [Written(path=path, how="removed") for path in sorted(before.keys() - after.keys())]
    return tuple(found)


def _walk(root: str, shown: str) -> Iterator[tuple[str, File]]:
    pending, looked_at = [""], 0
    while pending and looked_at < DIRECTORIES_LIMIT:
        below, looked_at = pending.pop(), looked_at + 1
        try:
            with os.scandir(f"{root}/{below}") as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        if shown == "." and _is_virtual_environment(below, {entry.name for entry in listed}):
            continue
        for entry in listed:
            path = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not places.is_package_directory(entry.name) and not (
                    shown == "~" and places.is_cache(path)
                ):
                    pending.append(f"{path}/")
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            yield (
                f"{shown}/{path}",
                File(
                    inode=status.st_ino,
                    size=status.st_size,
                    mode=status.st_mode,
                    changed_ns=status.st_ctime_ns,
                ),
            )


def _is_virtual_environment(below: str, names: set[str]) -> bool:
    """Python's, under whatever name. Not below a dot: there one could be put to hide other things."""
    dotted = any(part.startswith(".") for part in below.split("/"))
    return bool(below) and not dotted and names.issuperset({"pyvenv.cfg", "bin", "lib"})


def _is_program(file: File) -> bool:
    return stat.S_ISREG(file.mode) and bool(file.mode & 0o111)
