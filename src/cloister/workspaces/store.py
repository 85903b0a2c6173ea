"""Where a workspace lies that is not the project itself, and what it began with.

    <project state>/workspaces/<name>/
        workspace.json    what it is; written last: without it, a seed was interrupted, and is made anew
        files/            what the sandbox sees as its workspace
        base/             the same as it began, never shown to the sandbox: what changes are told from
        undo/             while changes are applied to the project (apply.py)

Rule 1: a workspace is there whole, or it is not there. Rule 2: `files` is the sandbox's: whoever reads it follows no
link (tree.py) and starts no git in it (git.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from cloister.config.directories import Project
from cloister.errors import WorkspaceError
from cloister.system import files
from cloister.workspaces import names, tree

KINDS = ("bind", "volume", "clone")
StoredKind = Literal["volume", "clone"]
_RECORD = "workspace.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A workspace that is there. `branch` and `commit` (where it began) are empty without a repository."""

    kind: StoredKind
    name: str
    directory: str
    branch: str = ""
    commit: str = ""

    @property
    def files(self) -> str:
        """What the sandbox sees as its workspace."""
        return os.path.join(self.directory, "files")

    @property
    def base(self) -> str:
        """The same as it began."""
        return os.path.join(self.directory, "base")

    @property
    def undo(self) -> str:
        """What apply.py keeps while it works."""
        return os.path.join(self.directory, "undo")


def directory(project: Project, name: str) -> str:
    """Where the workspace of this name lies, or would lie."""
    return os.path.join(project.state, "workspaces", names.check(name, what="a sandbox"))


def load(project: Project, name: str) -> Stored | None:
    """The workspace of this name; None if there is none, or only the beginning of one."""
    place = directory(project, name)
    text = files.read_text(os.path.join(place, _RECORD))
    if text is None:
        return None
    try:
        record = json.loads(text)
        kind = record["kind"]
        if kind not in ("volume", "clone"):
            raise ValueError(kind)
        return Stored(
            kind=kind, name=name, directory=place, branch=str(record["branch"]), commit=str(record["commit"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"the record of workspace {name!r} is damaged: {os.path.join(place, _RECORD)!r}",
            details=f"its files are in {os.path.join(place, 'files')!r}",
            resolution=f"save what you need of them, then remove the directory {place!r}",
        ) from error


@contextmanager
def locked(project: Project, name: str) -> Iterator[None]:
    """Hold the workspace of this name: two commands may make it, or change it, at once."""
    place = directory(project, name)
    files.make_private_directory(os.path.dirname(place))
    with files.locked(f"{place}.lock"):
        yield


@contextmanager
def making(project: Project, name: str, kind: StoredKind) -> Iterator[Stored]:
    """Give an empty place to fill, under `locked`; what was begun and not kept is removed, now and on a failure."""
    place = directory(project, name)
    tree.remove_whole(place)
    os.mkdir(place, 0o700)
    found = Stored(kind=kind, name=name, directory=place)
    os.mkdir(found.files, 0o755)
    os.mkdir(found.base, 0o700)
    try:
        yield found
    except BaseException:
        tree.remove_whole(place)
        raise


def keep(stored: Stored) -> None:
    """Say that it is whole."""
    record = {key: value for key, value in asdict(stored).items() if key in ("kind", "branch", "commit")}
    files.write_atomic(os.path.join(stored.directory, _RECORD), json.dumps(record).encode())


def remove(project: Project, name: str) -> None:
    """Forget a workspace and its files. Idempotent. Whoever calls has asked the user (changes.py)."""
    place = directory(project, name)
    files.remove(os.path.join(place, _RECORD))  # first: what is left of it is then no workspace
    tree.remove_whole(place)
    files.remove(f"{place}.lock")


def listed(project: Project) -> list[Stored]:
    """Every workspace of a project."""
    try:
        found = sorted(os.listdir(os.path.join(project.state, "workspaces")))
    except FileNotFoundError:
        return []
    return [
        stored for name in found if not name.endswith(".lock") and (stored := load(project, name)) is not None
    ]
