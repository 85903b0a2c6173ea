"""Which repository a workspace belongs to: its worktrees share their services.

Rule 1: git itself is not asked: it would run what a repository's configuration says.
Rule 2: a `.git` file is the workspace's, which the agent may have written. It counts only if the repository that it
        names agrees: its `worktrees/ID/gitdir` points back here. Otherwise the workspace is its own repository.
"""

from __future__ import annotations

import os

from cloister.config.directories import project_id
from cloister.system import files

_GITDIR = "gitdir: "
_LIMIT_CHARACTERS = 4096


def key(workspace: str) -> str:
    """A safe name for the repository of `workspace`."""
    return project_id(root(os.path.realpath(workspace)))


def root(workspace: str) -> str:
    """The directory of the main working tree, or of a bare repository; `workspace` itself if it is no worktree."""
    try:
        text = files.read_text(f"{workspace}/.git")
    except OSError:
        return workspace
    if text is None or not text.startswith(_GITDIR) or len(text) > _LIMIT_CHARACTERS or "\0" in text:
        return workspace
    return (
        _confirmed(workspace, os.path.realpath(os.path.join(workspace, text[len(_GITDIR) :].strip())))
        or workspace
    )


def _confirmed(workspace: str, directory: str) -> str | None:
    """The repository that has `directory` (…/worktrees/ID) and says that its worktree is `workspace`."""
    worktrees = os.path.dirname(directory)
    common = os.path.dirname(worktrees)
    if os.path.basename(worktrees) != "worktrees" or f"{common}/".startswith(f"{workspace}/"):
        return None
    try:
        back = files.read_text(f"{directory}/gitdir")
    except OSError:
        return None
    if back is None or "\0" in back or os.path.realpath(back.strip()) != os.path.join(workspace, ".git"):
        return None
    return os.path.dirname(common) if os.path.basename(common) == ".git" else common
