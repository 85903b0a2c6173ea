"""A private clone of the user's repository, and the way of its branch back.

Rule 1: `git clone` is not used: it would read the configuration of the repository that it clones, run its hooks and
obey its templates. A fresh git directory is written here, and filled by a fetch between two scratch directories.
Rule 2: nothing is shared: no hard link, no alternate. What the sandbox does to its clone stays there.
Rule 3: what comes back is checked by git (fsck), lands under refs/heads/cloister/ and touches neither a file of the
user's nor the branch that is checked out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from cloister.errors import RepositoryError
from cloister.sandbox import gitclean, gitconfig
from cloister.workspaces import git, gitsettings, ownership, repository, scratch
from cloister.workspaces.repository import Repository
from cloister.workspaces.scratch import Scratch

_ARGUMENTS_AT_ONCE = 500
_FETCH = (
    "fetch",
    "--quiet",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-recurse-submodules",
    "--no-tags",
)
# Old histories have these faults, and they harm nobody; the dangerous ones stay errors (git-fsck(1)).
_FORGIVEN = (
    "zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone", "badDate", "zeroPaddedDate", "badDateOverflow",
    "missingEmail", "badEmail", "missingNameBeforeEmail", "badName", "missingSpaceBeforeEmail", "hasDot",
)  # fmt: skip


def make(source: Repository, directory: str, *, branch: str, home: str) -> str:
    """Fill the empty `directory` with a clone of `source` on a new `branch` at its HEAD; returns that commit."""
    dot_git = f"{directory}/.git"
    for part in ("objects/pack", "objects/info", "refs/heads", "refs/tags", "info", "logs"):
        os.makedirs(f"{dot_git}/{part}")
    text = repository.configuration(source)
    _write(f"{dot_git}/config", gitsettings.configuration(text))
    _write(f"{dot_git}/HEAD", f"ref: {branch}\n")
    with scratch.borrowing(source, home=home) as theirs:
        commit = _commit(theirs, "HEAD")
        if commit is None:
            raise RepositoryError(
                f"the repository {source.work_tree!r} has no commit yet",
                resolution="make one: git commit -m 'first'   (or use a workspace of another kind)",
            )
        ours = Scratch(git_directory=dot_git, home=theirs.home)
        wanted = ("refs/heads/*:refs/remotes/origin/*", "refs/tags/*:refs/tags/*", f"HEAD:{branch}")
        address = f"file://{theirs.git_directory}"
        # What the user's own repository holds is not ours to judge on its way in.
        arguments = [*_FETCH, "--update-shallow", "--update-head-ok", address, *wanted]
        git.run(ours, arguments, settings=["transfer.fsckObjects=false"])
        git.run(ours, ["read-tree", "-u", "--reset", "HEAD"], work_tree=directory, index=f"{dot_git}/index")
    os.unlink(f"{dot_git}/config")
    _write(f"{dot_git}/config", _final(text))
    return commit


def leave_out(directory: str, paths: Iterable[str], *, home: str) -> None:
    """Remove tracked files from a fresh clone, so that git does not take that for a change."""
    ours = Scratch(git_directory=f"{directory}/.git", home=home)
    tracked = [path for path in paths if os.path.lexists(f"{directory}/{path}")]
    for start in range(0, len(tracked), _ARGUMENTS_AT_ONCE):
        some = tracked[start : start + _ARGUMENTS_AT_ONCE]
        git.run(ours, ["update-index", "--skip-worktree", "--", *some], work_tree=directory)
    for path in tracked:
        os.unlink(f"{directory}/{path}")


def commits(directory: str, branch: str, base: str, *, home: str) -> list[str]:
    """What the clone's branch has that `base` has not: one line for each commit, the newest first."""
    found = repository.find(directory)
    with scratch.borrowing(found, home=home) as theirs:
        if _commit(theirs, branch) is None:
            raise RepositoryError(
                f"the clone has no branch {branch.removeprefix('refs/heads/')!r} any more",
                resolution="make it again in the sandbox: git branch -f "
                + branch.removeprefix("refs/heads/"),
            )
        text = git.run(theirs, ["log", "--no-decorate", "--format=%h %s", f"{base}..{branch}", "--"])
    return text.decode("utf-8", "replace").splitlines()


def patch(directory: str, branch: str, base: str, *, home: str) -> bytes:
    """What the clone's branch changes, committed work alone, as a patch."""
    with scratch.borrowing(repository.find(directory), home=home) as theirs:
        return git.run(
            theirs, ["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", base, branch, "--"]
        )


def changed_paths(directory: str, branch: str, base: str, *, home: str) -> list[str]:
    """The files that the clone's branch changes."""
    with scratch.borrowing(repository.find(directory), home=home) as theirs:
        output = git.run(
            theirs, ["diff", "--no-ext-diff", "--no-renames", "--name-only", "-z", base, branch, "--"]
        )
    return [os.fsdecode(path) for path in output.split(b"\0") if path]


def is_dirty(directory: str, *, home: str) -> bool:
    """Whether the clone has work that it has not committed."""
    found = repository.find(directory)
    with scratch.borrowing(found, home=home) as theirs:
        arguments = ["status", "--porcelain=v1", "-z", "--ignore-submodules=all"]
        return bool(git.run(theirs, arguments, work_tree=found.work_tree))


def holds_work(directory: str, workspace: str, branch: str, *, home: str) -> bool:
    """Whether the clone has something that the user's repository has not: not committed, or not brought back."""
    if is_dirty(directory, home=home):
        return True
    with (
        scratch.borrowing(repository.find(directory), home=home) as theirs,
        scratch.borrowing(repository.find(workspace), home=home) as ours,
    ):
        made = _commit(theirs, branch)
        if made is None:
            return False
        known = git.run(ours, ["cat-file", "-t", made], optional_codes=(128,)) == b"commit\n"
        return not known


def bring_back(
    directory: str, into: Repository, branch: str, *, home: str, force: bool = False
) -> tuple[str, str]:
    """Fetch the clone's branch into the user's repository; returns its old (or empty) and new commit."""
    if repository.head(into) == branch:
        raise RepositoryError(
            f"{branch.removeprefix('refs/heads/')!r} is checked out in {into.work_tree!r}",
            resolution="check out another branch first: git switch -",
        )
    forgiven = [f"fetch.fsck.{name}=ignore" for name in _FORGIVEN]
    with (
        scratch.borrowing(repository.find(directory), home=home) as theirs,
        scratch.borrowing(into, home=home) as ours,
    ):
        new, old = _commit(theirs, branch), _commit(ours, branch)
        if new is None:
            raise RepositoryError(f"the clone has no branch {branch.removeprefix('refs/heads/')!r} any more")
        if old is not None and not force and not _goes_on_from(theirs, old, branch):
            raise RepositoryError(
                f"your branch {branch.removeprefix('refs/heads/')!r} has commits that the sandbox's has not",
                details=f"yours: {old[:12]}, the sandbox's: {new[:12]}",
                resolution=f"rename yours (git branch -m {branch.removeprefix('refs/heads/')} NAME), or use --force",
            )
        with ownership.kept(into.common, "objects/pack", os.path.dirname(branch)):
            forced = "+" if force else ""  # else git itself refuses what does not go on from the user's
            arguments = [*_FETCH, f"file://{theirs.git_directory}", f"{forced}{branch}:{branch}"]
            git.run(ours, arguments, settings=forgiven)
    return old or "", new


def _goes_on_from(theirs: Scratch, old: str, branch: str) -> bool:
    """Whether the clone's branch goes on from a commit of the user's, which the clone may not know."""
    if git.run(theirs, ["cat-file", "-t", old], optional_codes=(128,)) != b"commit\n":
        return False
    return git.run(theirs, ["rev-list", "-n", "1", old, f"^{branch}", "--"]) == b""


def _commit(where: Scratch, name: str) -> str | None:
    output = git.run(
        where, ["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], optional_codes=(1, 128)
    )
    return output.decode("ascii", "replace").strip() or None


def _final(untrusted_text: str) -> str:
    """The clone's own configuration: harmless settings of the user's, the addresses among them, without credentials."""
    clean, _ = gitclean.cleaned(gitconfig.redacted(untrusted_text))
    kept = [entry for entry in gitconfig.entries(clean) if entry.section != "branch"]
    lines = [
        f"[{entry.section} {gitconfig.quoted(entry.subsection)}]\n\t{entry.key} = {gitconfig.quoted(entry.value)}\n"
        if entry.subsection
        else f"[{entry.section}]\n\t{entry.key} = {gitconfig.quoted(entry.value)}\n"
        for entry in kept
    ]
    return "".join(lines) + "[core]\n\tbare = false\n\tlogallrefupdates = true\n"


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
