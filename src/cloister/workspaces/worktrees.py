"""Work trees for agents that work side by side: made, found and removed, without git reading what one could write.

`make_or_use(directory, name, …)` is what `cloister dev --worktree NAME` calls: the path it returns is a project of its
own, with its own home, caches, sandbox and ports.

Rule 1: what `git worktree add` does is done here, with git in a scratch directory for what needs git (refs, the
checkout): no hook runs, no filter, no setting of the repository's. See gitrepository-layout(5), "worktrees".
Rule 2: half of it is never left. Rule 3: removing loses no work: it is refused, with what is there (pending.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from cloister.errors import RepositoryError, WorkspaceError
from cloister.sandbox import linked, workspace
from cloister.workspaces import git, names, ownership, pending, repository, scratch, tree
from cloister.workspaces.pending import Pending
from cloister.workspaces.repository import Repository
from cloister.workspaces.scratch import Scratch

SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Worktree:
    """A linked work tree. `branch` is short, and empty for a detached HEAD; `is_there`: its directory exists."""

    name: str
    path: str
    branch: str
    is_there: bool
    locked: str | None


def around(directory: str, home: str) -> Repository:
    """The repository that `directory` lies in."""
    return repository.find(workspace.find(os.path.realpath(directory), home))


def directory_of(repo: Repository, name: str, holder: str = "") -> str:
    """Where the work tree of this name belongs: in `holder`, or beside the main work tree."""
    if holder:
        return os.path.join(os.path.realpath(holder), name)
    main = os.path.dirname(repo.common) if os.path.basename(repo.common) == ".git" else repo.common
    return os.path.join(f"{main}.worktrees", name)


def listed(repo: Repository) -> Iterator[Worktree]:
    """Every linked work tree of a repository, as its files say; paths are not believed, only shown."""
    try:
        found = sorted(os.listdir(f"{repo.common}/worktrees"))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in found:
        place = f"{repo.common}/worktrees/{name}"
        pointer = repository.read_small(f"{place}/gitdir")
        if pointer is None:
            continue
        path = os.path.dirname(os.path.normpath(os.path.join(place, os.fsdecode(pointer).rstrip("\n"))))
        head = (repository.read_small(f"{place}/HEAD") or b"").decode("utf-8", "replace").strip()
        reason = repository.read_small(f"{place}/locked")
        yield Worktree(
            name=name,
            path=path,
            branch=head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else "",
            is_there=os.path.isdir(path),
            locked=None if reason is None else reason.decode("utf-8", "replace").strip(),
        )


def make_or_use(directory: str, name: str, *, home: str, holder: str = "") -> str:
    """The work tree of this name of the repository around `directory`: its path. Made, with its branch, if need be.

    `home` is the user's; `holder` the directory for work trees, if not `<repository>.worktrees`.
    """
    names.check(name, what="a work tree")
    repo = around(directory, home)
    path = directory_of(repo, name, holder)
    known = linked.look(path) if os.path.lexists(path) else None
    if known is not None and known.common == repo.common:
        return path
    if os.path.lexists(path):
        raise WorkspaceError(
            f"{path!r} is there already, and is no work tree of {repo.common!r}",
            resolution="choose another name, or move it away",
        )
    for other in listed(repo):
        if other.branch == name and other.is_there:
            raise RepositoryError(
                f"the branch {name!r} is checked out in {other.path!r} already",
                resolution=f"work there: cloister dev -C {other.path!r}   or choose another name",
            )
    if repository.head(repo) == f"refs/heads/{name}":
        raise RepositoryError(
            f"the branch {name!r} is checked out in {repo.work_tree!r} itself",
            resolution="choose another name, or check out another branch there",
        )
    _make(repo, name, path, home)
    return path


def look(repo: Repository, name: str, *, home: str, holder: str = "") -> tuple[Worktree, Pending | None]:
    """The work tree of this name and what it holds; None if its directory is gone. RepositoryError if there is none."""
    names.check(name, what="a work tree")
    path = directory_of(repo, name, holder)
    every = list(listed(repo))
    # git names a second work tree of one name differently; the path is what was asked for.
    found = next((one for one in every if one.path == path), None) or next(
        (one for one in every if one.name == name), None
    )
    if found is None:
        known = ", ".join(one.name for one in every)
        raise RepositoryError(
            f"{repo.common!r} has no work tree {name!r}",
            details=f"it has: {known}" if known else "it has no linked work tree",
            resolution="see: cloister worktree list",
        )
    if not found.is_there:
        return found, None
    known_tree = linked.look(os.path.realpath(found.path))
    if known_tree is None or known_tree.common != repo.common:
        raise RepositoryError(
            f"{found.path!r} is no work tree of {repo.common!r} any more",
            details="its file '.git' leads elsewhere",
            resolution="see: git worktree repair",
        )
    return found, pending.look(
        Repository(
            work_tree=known_tree.work_tree, git_directory=known_tree.git_directory, common=known_tree.common
        ),
        home=home,
    )


def remove(repo: Repository, found: Worktree) -> None:
    """Remove a work tree and git's notes of it; its branch, and the stashes, stay. Whoever calls has looked."""
    if found.is_there:
        tree.remove_whole(found.path)
    tree.remove_whole(f"{repo.common}/worktrees/{found.name}")
    for directory in (f"{repo.common}/worktrees", os.path.dirname(found.path)):
        try:
            os.rmdir(directory)  # only if it is empty
        except OSError:
            continue


def delete_branch(repo: Repository, branch: str, *, home: str) -> None:
    """Delete a branch. Whoever calls has looked whether another one, or a remote, has its commits."""
    with scratch.borrowing(repo, home=home) as ours, ownership.kept(repo.common):
        git.run(ours, ["update-ref", "--no-deref", "-d", f"refs/heads/{branch}"])


def only_on(repo: Repository, branch: str, *, home: str) -> list[str]:
    """The commits that are on this branch and on no other, no tag and no remote: short hash and subject."""
    name = f"refs/heads/{branch}"
    with scratch.borrowing(repo, home=home) as ours:
        output = git.run(
            ours,
            [
                "log",
                "--no-decorate",
                "--format=%h %s",
                name,
                "--not",
                f"--exclude={branch}",
                "--branches",
                "--tags",
                "--remotes",
                "--",
            ],
        )
    return output.decode("utf-8", "replace").splitlines()


def _make(repo: Repository, name: str, path: str, home: str) -> None:
    branch, own = f"refs/heads/{name}", _own_directory(repo, name)
    with scratch.borrowing(repo, home=home) as ours:
        start = _commit(ours, branch)
        fresh = start is None
        start = start or _commit(ours, "HEAD")
        if start is None:
            raise RepositoryError(
                f"the repository {repo.work_tree!r} has no commit yet",
                resolution="make one: git commit -m 'first'",
            )
        made = _missing(path)
        os.makedirs(path)
        try:
            if fresh:
                with ownership.kept(repo.common, "refs/heads"):
                    git.run(ours, ["update-ref", "--no-deref", branch, start, ""])
            _write_notes(own, branch, path)
            git.run(ours, ["read-tree", "-u", "--reset", start], work_tree=path, index=f"{own}/index")
            _write(f"{path}/.git", f"gitdir: {own}\n")
            for new in (own, made):
                ownership.give_tree(new, repo.common)
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            shutil.rmtree(made, ignore_errors=True)
            if fresh:
                git.run(ours, ["update-ref", "-d", branch], optional_codes=(1, 128))
            raise


def _own_directory(repo: Repository, name: str) -> str:
    """A name that is free in `<common>/worktrees`: work trees of one name may lie in two places."""
    for suffix in ("", *map(str, range(1, 1000))):
        place = f"{repo.common}/worktrees/{name}{suffix}"
        if not os.path.lexists(place):
            return place
    raise RepositoryError(f"the repository has too many work trees of the name {name!r}")


def _write_notes(own: str, branch: str, path: str) -> None:
    os.makedirs(f"{own}/logs")
    _write(f"{own}/gitdir", f"{path}/.git\n")
    _write(f"{own}/commondir", "../..\n")
    _write(f"{own}/HEAD", f"ref: {branch}\n")


def _missing(path: str) -> str:
    """The first directory on the way to `path` that is missing: what is ours to remove again."""
    while not os.path.lexists(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


def _commit(ours: Scratch, name: str) -> str | None:
    output = git.run(
        ours, ["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], optional_codes=(1, 128)
    )
    return output.decode("ascii", "replace").strip() or None


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
