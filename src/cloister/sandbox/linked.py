"""Recognise a work tree that `git worktree add` has made, whose git directory lies outside of it.

Rule 1: `.git` is believed only if what it leads to leads back: an agent that could write one of the two files cannot
give a sandbox, or the host's git, another repository. Everything between is a directory, not a link.
Rule 2: the shared directory is the one that holds the git directory (`<common>/worktrees/<id>`), whatever else
`commondir` says. See gitrepository-layout(5).
"""

from __future__ import annotations

import os

from cloister.sandbox.workspace import contains
from cloister.values import dataclass

_LIMIT_BYTES = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedTree:
    """`git_directory` is this work tree's own, in `common`, which holds objects, refs, configuration and hooks."""

    work_tree: str
    git_directory: str
    common: str


def look(work_tree: str) -> LinkedTree | None:
    """The parts of a linked work tree, a real path; None for anything else."""
    pointer = _line(f"{work_tree}/.git")
    if pointer is None or not pointer.startswith("gitdir: "):
        return None
    git_directory = os.path.normpath(os.path.join(work_tree, pointer.removeprefix("gitdir: ")))
    holder = os.path.dirname(git_directory)
    common = os.path.dirname(holder)
    if os.path.basename(holder) != "worktrees" or os.path.realpath(git_directory) != git_directory:
        return None
    back, shared = _line(f"{git_directory}/gitdir"), _line(f"{git_directory}/commondir")
    if back is None or shared is None:
        return None
    if os.path.normpath(os.path.join(git_directory, back)) != f"{work_tree}/.git":
        return None
    if os.path.normpath(os.path.join(git_directory, shared)) != common:
        return None
    if contains(common, work_tree) or contains(work_tree, common):
        return None  # a work tree in its own git directory, or the reverse: neither can be held apart
    if not all(os.path.lexists(f"{common}/{name}") for name in ("HEAD", "objects", "refs")):
        return None
    return LinkedTree(work_tree=work_tree, git_directory=git_directory, common=common)


def _line(path: str) -> str | None:
    """The one line of a small regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(descriptor, "rb") as file:
            content = file.read(_LIMIT_BYTES)
    except OSError:  # a directory
        return None
    text = os.fsdecode(content)
    return None if "\0" in text else text.rstrip("\r\n")
