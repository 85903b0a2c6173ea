"""A git directory of ours that borrows a repository's objects and refs, so that git reads no configuration but ours.

git obeys `<git directory>/config`, hooks and more there, and no option of git keeps it from reading them. So it is
started in another git directory: configuration rendered by gitsettings.py, no hooks, copies of the small files, and
links to the objects and refs, which repository.py has looked at.

Rule 1: nothing is copied or linked that git executes. Rule 2: `HEAD` and the index are copies: what git does to them
here is not done to the repository. Refs and objects are the repository's own.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cloister.errors import RepositoryError
from cloister.sandbox import gitconfig
from cloister.workspaces import gitsettings, repository
from cloister.workspaces.repository import Repository

_HEAD = re.compile(rb"ref: refs/[^\x00-\x20\x7f~^:?*\[\\]+\n?|[0-9a-f]{40}\n?|[0-9a-f]{64}\n?")
_INDEX = re.compile(r"index|sharedindex\.[0-9a-f]{40,64}")
INDEX_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A git directory to run git in, and an empty home for it."""

    git_directory: str
    home: str


@contextmanager
def borrowing(found: Repository, *, home: str) -> Iterator[Scratch]:
    """Make one for this repository, whose shape is checked first, and remove it.

    `home`: the user's, whose list of ignored files counts.
    """
    repository.check(found)
    text = gitsettings.configuration(repository.configuration(found), excludes_file=_excludes(home))
    with tempfile.TemporaryDirectory(prefix="cloister-git-") as place:
        scratch = Scratch(git_directory=f"{place}/git", home=f"{place}/home")
        os.mkdir(scratch.home)
        os.mkdir(scratch.git_directory)
        _write(f"{scratch.git_directory}/config", text.encode("utf-8", "surrogateescape"))
        _write(f"{scratch.git_directory}/HEAD", _head(found))
        os.mkdir(f"{scratch.git_directory}/info")
        for name in ("info/exclude", "shallow"):
            content = repository.read_small(f"{found.common}/{name}")
            if content is not None:
                _write(f"{scratch.git_directory}/{name}", content)
        for name in ("objects", "refs", "packed-refs"):
            # packed-refs may be absent: git locks and makes it where the link leads to.
            os.symlink(f"{found.common}/{name}", f"{scratch.git_directory}/{name}")
        for name in os.listdir(found.git_directory):
            if _INDEX.fullmatch(name):
                _copy(f"{found.git_directory}/{name}", f"{scratch.git_directory}/{name}")
        yield scratch


def _head(found: Repository) -> bytes:
    content = repository.read_small(f"{found.git_directory}/HEAD") or b""
    if _HEAD.fullmatch(content) is None:
        raise RepositoryError(
            f"'{found.git_directory}/HEAD' names neither a branch nor a commit",
            resolution="repair it: git symbolic-ref HEAD refs/heads/main",
        )
    return content


def _excludes(home: str) -> str:
    """The user's own list of ignored files, which is no sandbox's to write."""
    for path in (f"{home}/.gitconfig", f"{home}/.config/git/config"):
        text = (repository.read_small(path) or b"").decode("utf-8", "replace")
        for entry in gitconfig.entries(text):
            if (entry.section, entry.subsection, entry.key) == ("core", "", "excludesfile"):
                value = (
                    entry.value.replace("~/", f"{home}/", 1) if entry.value.startswith("~/") else entry.value
                )
                if value.startswith("/") and value.isprintable():
                    return value
    default = f"{home}/.config/git/ignore"
    return default if os.path.isfile(default) and default.isprintable() else gitsettings.NOTHING


def _write(path: str, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


def _copy(source: str, target: str) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as reading, open(target, "xb") as writing:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > INDEX_LIMIT_BYTES:
            raise RepositoryError(f"{source!r} is no index of git's")
        shutil.copyfileobj(reading, writing)
        os.utime(
            target, ns=(status.st_atime_ns, status.st_mtime_ns)
        )  # git compares: what is as old is looked at
