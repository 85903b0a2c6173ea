"""Find a git repository on the host, and look at its shape before git does.

Rule 1: a sandbox may have written everything here but what was mounted read-only. Whatever would lead git out of
the repository (links, `.git` files, `commondir`, alternates) is checked here, and refused where it leads elsewhere.
Rule 2: nothing is started and nothing is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from cloister.errors import RepositoryError
from cloister.sandbox import gitconfig, linked
from cloister.system import files

ENTRIES_LIMIT = 2_000_000
_TEXT_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A work tree, its git directory, and the one that all work trees of the repository share (else the same)."""

    work_tree: str
    git_directory: str
    common: str

    @property
    def is_linked(self) -> bool:
        """Whether this is a work tree that `git worktree add` has made."""
        return self.git_directory != self.common


def find(directory: str) -> Repository:
    """The repository whose work tree `directory` is. RepositoryError if there is none, or none that can be used."""
    place = os.path.realpath(directory)
    dot_git = f"{place}/.git"
    if os.path.islink(dot_git):
        raise RepositoryError(
            f"{dot_git!r} is a symbolic link, which a sandbox could have made",
            resolution="replace the link by what it leads to",
        )
    if os.path.isfile(dot_git):
        return _of_file(place, dot_git)
    if not os.path.lexists(f"{dot_git}/HEAD"):
        if os.path.lexists(f"{place}/HEAD") and os.path.isdir(f"{place}/objects"):
            raise RepositoryError(
                f"{place!r} is a bare repository: it has no files to work on",
                resolution="make a work tree of it (git worktree add DIRECTORY), and go there",
            )
        raise RepositoryError(
            f"{place!r} is not the top of a git repository",
            details="expected: a directory '.git' in it",
            resolution="cd into a repository, or make one: git init",
        )
    found = Repository(work_tree=place, git_directory=dot_git, common=dot_git)
    common = files.read_text(f"{dot_git}/commondir")
    if common is not None and common.strip() not in ("", "."):
        raise RepositoryError(
            f"'{dot_git}/commondir' leads git to another repository",
            resolution=f"see who wrote it; to remove it: rm '{dot_git}/commondir'",
        )
    return found


def check(repository: Repository) -> None:
    """Raise RepositoryError if anything in the repository leads out of it."""
    for directory in {repository.common, repository.git_directory}:
        for name in (
            "HEAD",
            "config",
            "packed-refs",
            "index",
            "shallow",
            "refs",
            "objects",
            "info",
            "worktrees",
        ):
            _refuse_link(f"{directory}/{name}")
    for name in ("alternates", "http-alternates"):
        path = f"{repository.common}/objects/info/{name}"
        if os.path.lexists(path):
            raise RepositoryError(
                f"the repository borrows objects from another one: {path!r}",
                details="A sandbox could have written that, to be given what it must not read.",
                resolution=f"make it whole: git repack -a -d && rm '{path}'",
            )
    for tree in ("objects", "refs"):
        for link in _links(f"{repository.common}/{tree}"):
            _refuse_link(link)
    _refuse_partial(repository)


def head(repository: Repository) -> str | None:
    """The branch that is checked out (`refs/heads/…`); None for a detached HEAD."""
    text = files.read_text(f"{repository.git_directory}/HEAD") or ""
    name = text.removeprefix("ref:").strip()
    return name if text.startswith("ref:") and name.startswith("refs/heads/") else None


def configuration(repository: Repository) -> str:
    """The text of the repository's own configuration, untrusted."""
    return files.read_text(f"{repository.common}/config") or ""


def nested(work_tree: str) -> Iterator[str]:
    """Repositories below a work tree, by paths relative to it: submodules and others. Not walked into."""
    seen = 0
    for directory, names, file_names in os.walk(work_tree):
        seen += 1 + len(file_names)
        if seen > ENTRIES_LIMIT:
            raise RepositoryError(f"{work_tree!r} has more than {ENTRIES_LIMIT} entries")
        if directory != work_tree and (".git" in names or ".git" in file_names):
            yield os.path.relpath(directory, work_tree)
            names.clear()
        elif ".git" in names:
            names.remove(".git")


def _of_file(place: str, dot_git: str) -> Repository:
    tree = linked.look(place)
    if tree is None:
        raise RepositoryError(
            f"{dot_git!r} leads to no git directory that leads back to it",
            details="a submodule, a work tree that was moved, or a file that a sandbox has written",
            resolution="for a moved work tree, run in the main one: git worktree repair",
        )
    return Repository(work_tree=place, git_directory=tree.git_directory, common=tree.common)


def _refuse_link(path: str) -> None:
    if os.path.islink(path):
        raise RepositoryError(
            f"{path!r} is a symbolic link, and leads to {os.readlink(path)!r}",
            details="A sandbox could have made it, to be given what it must not read.",
            resolution="replace it by what it leads to, or remove it",
        )


def _links(directory: str) -> Iterator[str]:
    pending, seen = [directory], 0
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > ENTRIES_LIMIT:
                    raise RepositoryError(
                        f"{directory!r} has more than {ENTRIES_LIMIT} entries", resolution="pack them: git gc"
                    )
                if entry.is_symlink():
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def _refuse_partial(repository: Repository) -> None:
    for entry in gitconfig.entries(configuration(repository)):
        if (entry.section, entry.key) == ("remote", "promisor") and entry.value.lower() != "false":
            raise RepositoryError(
                f"the repository is a partial clone of {entry.subsection!r}: some objects are there only",
                resolution="complete it: git fetch --refetch --no-filter",
            )


def read_small(path: str) -> bytes | None:
    """A regular file of the repository, followed through no link; None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.read(_TEXT_LIMIT_BYTES)
