"""Copy files between the host and a sandbox's home and workspace, as `docker cp` does.

Rule 1: neither side leads the other astray: in the sandbox no link is followed; on the host the user's own path is
taken as it is, but not through a link in a project, which a sandbox may have made.
Rule 2: out of a sandbox come files, directories and links that stay within what is copied; no device, no SUID.
Rule 3: a file that is there is replaced whole; a directory is filled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from cloister.errors import UsageError, WorkspaceError
from cloister.sandbox.workspace import contains
from cloister.workspaces import review, tree
from cloister.workspaces.tree import Entry


class Access(Protocol):
    """Files that the host reaches only through an engine. FileNotFoundError where there is nothing at a path."""

    def export(self, path: str) -> BinaryIO:
        """A tar stream of `path`, with its last component as the first of every name (as `docker cp NAME:PATH -`)."""

    def store(self, directory: str, stream: BinaryIO) -> None:
        """Unpack a tar stream in a directory there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """Where directories of a sandbox lie on the host: (path in the sandbox, directory on the host), longest first."""

    places: tuple[tuple[str, str], ...]
    workspace: str

    def locate(self, path: str) -> tuple[str, str]:
        """The host's directory, and the path below it (empty: itself), of a path in the sandbox."""
        inside = os.path.normpath(os.path.join(self.workspace, path))
        for seen, root in self.places:
            if contains(seen, inside):
                return root, inside[len(seen) + 1 :]
        shown = " and ".join(repr(seen) for seen, _ in self.places)
        raise WorkspaceError(
            f"{inside!r} is not a place of the sandbox that outlives it",
            details=f"It keeps {shown}.",
            resolution="copy to or from there",
        )


def split(text: str) -> tuple[str | None, str]:
    """`NAME:PATH` of a sandbox, or a path of the host (None). As docker: a path with a colon is written `./a:b`."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name in ("", "."):
        return None, text
    return name, path


def out(mounted: Mounted, path: str, destination: str, *, guarded: str) -> list[str]:
    """Copy from the sandbox to the host; returns what was left out. `guarded`: the project, no link in it is taken."""
    root, below = mounted.locate(path)
    name = os.path.basename(below) or os.path.basename(mounted.workspace)
    return copy_out(root, below, name, destination, shown=path, guarded=guarded)


def copy_out(root: str, below: str, name: str, destination: str, *, shown: str, guarded: str) -> list[str]:
    """As `out`, from a path below a directory of the host; `name`: what it is called in a directory."""
    target = host_place(destination, guarded)
    if os.path.isdir(target) and not os.path.islink(target):
        return _copy(root, below, target, name, shown=shown, is_untrusted=True)
    parent, name = os.path.split(target)
    if not os.path.isdir(parent):
        raise WorkspaceError(f"there is no directory {parent!r}", resolution=f"make it: mkdir -p {parent!r}")
    return _copy(root, below, parent, name, shown=shown, is_untrusted=True)


def into(mounted: Mounted, source: str, path: str) -> list[str]:
    """Copy from the host into the sandbox; returns what was left out."""
    real = os.path.realpath(source)
    if not os.path.lexists(real):
        raise missing(source)
    root, below = mounted.locate(path)
    if path.endswith("/") or not below or os.path.isdir(os.path.join(root, below)):
        below = f"{below}/{os.path.basename(real)}".lstrip("/")
    directory, name = os.path.split(real)
    return _copy(directory, name, root, below, shown=source, is_untrusted=False)


def host_place(destination: str, guarded: str) -> str:
    """The destination with the links of the user's resolved, and none in the project passed."""
    if not destination:
        raise UsageError("the destination is empty", resolution="name a file or a directory")
    written = os.path.normpath(os.path.join(os.getcwd(), destination))
    parent = os.path.realpath(os.path.dirname(written))
    real = os.path.join(parent, os.path.basename(written)) if written != "/" else "/"
    lexical = os.path.dirname(written)
    while contains(guarded, lexical) and lexical != guarded:
        if os.path.islink(lexical):
            raise WorkspaceError(
                f"{lexical!r} is a symbolic link, which a sandbox could have made",
                resolution=f"name the directory itself: {os.path.realpath(lexical)!r}",
            )
        lexical = os.path.dirname(lexical)
    return real


def _copy(root: str, below: str, target: str, name: str, *, shown: str, is_untrusted: bool) -> list[str]:
    """Copy one file or tree of `root` to `name` below `target`."""
    found = _look(root, below, is_untrusted=is_untrusted)
    try:
        return _copy_found(root, target, name, found, shown=shown, is_untrusted=is_untrusted)
    except (NotADirectoryError, IsADirectoryError) as error:
        raise WorkspaceError(
            f"{shown!r} cannot be copied to {name!r}: a symbolic link, a file or a directory is in the way",
            resolution="name the directory itself, by its own path",
        ) from error


def _copy_found(
    root: str, target: str, name: str, found: Entry, *, shown: str, is_untrusted: bool
) -> list[str]:
    if found.kind == "file" and is_untrusted and found.privileged:
        raise WorkspaceError(
            f"{shown!r} has a set-user-ID, set-group-ID or sticky bit", resolution="chmod a-s it"
        )
    if found.kind == "file":
        tree.replace(root, target, found, name)
        return []
    if found.kind != "directory":
        raise WorkspaceError(
            f"{shown!r} is {'a symbolic link' if found.kind == 'link' else 'neither a file nor a directory'}",
            resolution="name what it leads to, by its own path",
        )
    left_out = []
    with _held(root, found.path) as directory, _held(target, name, make=True) as place:
        for entry in tree.entries(directory, enter=lambda _: True).values():
            reason = _reason_against(entry) if is_untrusted else ""
            reason = reason or _put(directory, entry, place)
            if reason:
                left_out.append(f"{entry.path!r} was left out: {reason}")
    return left_out


def _look(root: str, below: str, *, is_untrusted: bool) -> Entry:
    """What lies at a path below `root`. WorkspaceError if nothing does, or only behind a link."""
    if not below:
        return Entry(path="", kind="directory")
    try:
        with tree.parent_of(root, below) as (directory, name):
            found = tree.look(directory, name, below)
    except FileNotFoundError:
        found = None
    except NotADirectoryError as error:
        raise WorkspaceError(
            f"the way to {below!r} leads through a symbolic link or a file",
            resolution="name what it leads to, by its own path",
        ) from error
    if found is None:
        raise missing(below, " in the sandbox" if is_untrusted else "")
    return found


@contextmanager
def _held(root: str, below: str, *, make: bool = False) -> Iterator[str]:
    """A path of a directory below `root` that stays the same directory, whatever is exchanged on the way to it."""
    with tree.parent_of(root, f"{below}/x".lstrip("/"), make=make) as (directory, _):
        yield f"/proc/self/fd/{directory}"


def _put(source: str, entry: Entry, place: str) -> str:
    """Copy one entry; why not, if it could not be."""
    try:
        if entry.kind == "directory":
            with _held(place, entry.path, make=True):
                return ""
        if entry.kind == "special":
            return "it is a device, a pipe or a socket"
        tree.replace(source, place, entry)
    except OSError as error:
        return error.strerror or "it cannot be written"
    return ""


def missing(path: str, where: str = "") -> WorkspaceError:
    """There is nothing at a path that the user named."""
    return WorkspaceError(f"there is no file {path!r}{where}", resolution="look how it is spelt")


def _reason_against(entry: Entry) -> str:
    """Why something does not come out of a sandbox."""
    if entry.privileged:
        return "it has a set-user-ID, set-group-ID or sticky bit"
    return review.reason_against_link(entry.path, entry.target) if entry.kind == "link" else ""
