"""As root in a repository of another user: what git makes there belongs to that user, as if they had made it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept(directory: str, *relative: str) -> Iterator[None]:
    """Give what is new in these directories below `directory`, and they themselves, to the owner of `directory`."""
    if os.geteuid() != 0:
        yield
        return
    owner = os.stat(directory)
    before = {name: _listed(f"{directory}/{name}") for name in relative}
    yield
    for name, known in before.items():
        for path in (f"{directory}/{name}", *sorted(_listed(f"{directory}/{name}") - known)):
            if os.lstat(path).st_uid != owner.st_uid:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def give_tree(tree: str, like: str) -> None:
    """Give a whole tree that was made here to the owner of `like`."""
    if os.geteuid() != 0:
        return
    owner = os.stat(like)
    os.chown(tree, owner.st_uid, owner.st_gid, follow_symlinks=False)
    for _, directories, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        for name in (*directories, *files):
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


def _listed(directory: str) -> set[str]:
    try:
        return {f"{directory}/{name}" for name in os.listdir(directory)}
    except FileNotFoundError:
        return set()
