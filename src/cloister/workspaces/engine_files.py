"""The same for a sandbox whose files lie in an engine's volumes: through tar streams (`transfer.Access`).

The host keeps a mirror of such a workspace in the place where it would keep the workspace itself (store.py): filled
by `materialise`, given to the engine by `seed`, and brought up to date by `refresh` before `diff` and `apply` look.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing

from cloister.errors import WorkspaceError
from cloister.workspaces import archive, transfer, tree
from cloister.workspaces.store import Stored
from cloister.workspaces.transfer import Access


def seed(stored: Stored, access: Access, workspace: str, *, owner: tuple[int, int]) -> None:
    """Fill the sandbox's workspace from the mirror, history included; the files belong to `owner` (uid, gid)."""
    listed = tree.entries(stored.files, enter=lambda _: True).values()
    with tempfile.TemporaryFile(dir=stored.directory) as stream:
        archive.write(stored.files, stream, listed, owner=owner)
        stream.seek(0)
        access.store(workspace, stream)


def refresh(stored: Stored, access: Access, workspace: str) -> list[str]:
    """Bring the mirror to what the sandbox has; returns what was left out. On a failure the mirror is as it was."""
    fresh, old = os.path.join(stored.directory, "fresh"), os.path.join(stored.directory, "old")
    for place in (fresh, old):
        tree.remove_whole(place)
    os.mkdir(fresh, 0o755)
    with closing(access.export(workspace)) as stream:
        left_out = archive.extract(stream, fresh, strip=os.path.basename(workspace))
    os.rename(stored.files, old)
    os.rename(fresh, stored.files)
    tree.remove_whole(old)
    return left_out


def copy_out(access: Access, path: str, destination: str, *, guarded: str, scratch: str) -> list[str]:
    """As `transfer.out`, for an absolute path in the sandbox. `scratch`: a directory of ours to unpack in."""
    name = os.path.basename(path)
    with tempfile.TemporaryDirectory(prefix="copy-", dir=scratch) as place:
        with closing(access.export(path)) as stream:
            left_out = archive.extract(stream, place)
        if not os.path.lexists(os.path.join(place, name)):
            raise WorkspaceError(
                f"there is no file {path!r} in the sandbox", resolution="look how it is spelt"
            )
        return left_out + transfer.copy_out(place, name, name, destination, shown=path, guarded=guarded)


def copy_in(access: Access, source: str, path: str, *, owner: tuple[int, int], scratch: str) -> None:
    """Copy a file or a directory of the host into the sandbox as `path`, absolute."""
    real = os.path.realpath(source)
    if not os.path.lexists(real):
        raise WorkspaceError(f"there is no file {source!r}", resolution="look how it is spelt")
    directory, name = os.path.split(real)
    listed = list(
        tree.entries(directory, enter=lambda one: one == name or one.startswith(f"{name}/")).values()
    )
    target, last = os.path.split(path)
    with (
        tempfile.TemporaryDirectory(prefix="copy-", dir=scratch) as place,
        tempfile.TemporaryFile() as stream,
    ):
        for failure in tree.copy(directory, place, listed):
            raise WorkspaceError(failure)
        os.rename(os.path.join(place, name), os.path.join(place, last or name))
        copied = tree.entries(place, enter=lambda _: True).values()
        archive.write(place, stream, copied, owner=owner)
        stream.seek(0)
        access.store(target, stream)
