"""The same for a sandbox whose files lie in an engine's volumes: through tar streams (`transfer.Access`).

The host keeps a mirror of such a workspace in the place where it would keep the workspace itself (store.py): filled
by `materialise`, given to the engine by `send`, and brought up to date by `refresh` before `diff` and `apply` look.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing

from cloister.errors import WorkspaceError
from cloister.workspaces import archive, transfer, tree
from cloister.workspaces.store import Stored
from cloister.workspaces.transfer import Access


def send(directory: str, access: Access, path: str, *, owner: tuple[int, int]) -> None:
    """Bring a directory of the host, repositories included, to `path`; all belongs to `owner` (uid, gid) there."""
    listed = tree.entries(directory, enter=lambda _: True).values()
    target, name = os.path.split(path)
    with tempfile.TemporaryFile() as stream:
        archive.write(directory, stream, listed, prefix=name, owner=owner)
        stream.seek(0)
        access.store(target, stream)


def refresh(stored: Stored, access: Access, path: str) -> list[str]:
    """Bring the mirror to what is at `path`; returns what was left out. On a failure the mirror is as it was."""
    fresh, old = os.path.join(stored.directory, "fresh"), os.path.join(stored.directory, "old")
    for place in (fresh, old):
        tree.remove_whole(place)
    os.mkdir(fresh, 0o755)
    with closing(access.export(path)) as stream:
        left_out = archive.extract(stream, fresh, strip=os.path.basename(path))
    os.rename(stored.files, old)
    os.rename(fresh, stored.files)
    tree.remove_whole(old)
    return left_out


def copy_out(access: Access, path: str, destination: str, *, shown: str, guarded: str) -> list[str]:
    """As `transfer.out`: what is at `path`, which the user knows as `shown`."""
    name = os.path.basename(path)
    with tempfile.TemporaryDirectory(prefix="cloister-copy-") as place:
        try:
            with closing(access.export(path)) as stream:
                left_out = archive.extract(stream, place)
        except FileNotFoundError:
            raise transfer.missing(shown) from None
        return left_out + transfer.copy_out(
            place, name, os.path.basename(shown) or name, destination, shown=shown, guarded=guarded
        )


def copy_in(access: Access, source: str, path: str, *, shown: str, owner: tuple[int, int]) -> list[str]:
    """As `transfer.into`: a file or a directory of the host, to `path`, which the user knows as `shown`."""
    real = os.path.realpath(source)
    if not os.path.lexists(real):
        raise transfer.missing(source)
    directory, name = os.path.split(real)
    target, last = os.path.split(path.rstrip("/"))
    if path.endswith("/") or _is_directory(access, path):
        target, last = path.rstrip("/"), name
    listed = list(
        tree.entries(directory, enter=lambda one: one == name or one.startswith(f"{name}/")).values()
    )
    with (
        tempfile.TemporaryDirectory(prefix="cloister-copy-") as place,
        tempfile.TemporaryFile() as stream,
    ):
        left_out = tree.copy(directory, place, listed)
        os.rename(os.path.join(place, name), os.path.join(place, last))
        copied = tree.entries(place, enter=lambda _: True).values()
        archive.write(place, stream, copied, owner=owner)
        stream.seek(0)
        try:
            access.store(target, stream)
        except FileNotFoundError:
            raise WorkspaceError(
                f"there is no directory {os.path.dirname(shown)!r} in the sandbox",
                resolution="make it: cloister exec -- mkdir -p DIRECTORY",
            ) from None
    return left_out


def _is_directory(access: Access, path: str) -> bool:
    try:
        with closing(access.export(path)) as stream:
            return archive.begins_with_directory(stream)
    except FileNotFoundError:
        return False
