"""Judge what may come from a private workspace into the user's project, before anything is written.

Rule 1: no I/O. Rule 2: what the host executes or obeys on its own (sandbox/protect.py) comes only if the user asks for
exactly that, having seen it. `.git` never comes. Rule 3: a name is judged as every file system might read it.
"""

from __future__ import annotations

import posixpath
import unicodedata
from dataclasses import dataclass

from cloister.sandbox import protect
from cloister.workspaces.changes import Change

GIT_NAMES = frozenset({".git", "git~1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """It may come."""

    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """It comes with --include-protected only: `name` is what the host would act on."""

    change: Change
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It never comes, and why."""

    change: Change
    reason: str


Verdict = Accepted | Protected | Refused


def judge(change: Change) -> Verdict:
    """Judge one change. Where a link leads through other links is looked at by apply.py."""
    reason = _reason_against(change)
    if reason:
        return Refused(change=change, reason=reason)
    name = protected_name(change.path)
    if name:
        return Protected(change=change, name=name)
    return Accepted(change=change)


def protected_name(path: str) -> str:
    """The part of a path that the host acts on; empty if there is none."""
    parts, parent = path.split("/"), ""
    for number, part in enumerate(parts, 1):
        if protect.is_protected(plain(part), parent=parent, directory=number < len(parts)):
            return part
        parent = plain(part)
    return ""


def plain(name: str) -> str:
    """A name as the most generous file system takes it: without case, and without what has no width."""
    shown = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return shown.casefold().rstrip(". ") or shown


def _reason_against(change: Change) -> str:
    parts = change.path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it is no path in the project"
    if any(unicodedata.category(c) == "Cc" for c in change.path):
        return "its name contains a control character"
    if any(plain(part) in GIT_NAMES for part in parts):
        return "git would take it for a repository"
    after = change.after
    if after is None:
        return ""
    if after.kind == "special":
        return "it is a device, a pipe or a socket"
    if after.privileged:
        return "it has a set-user-ID, set-group-ID or sticky bit"
    return reason_against_link(change.path, after.target) if after.kind == "link" else ""


def reason_against_link(path: str, target: str) -> str:
    """Why a link at `path` of a tree may lead out of that tree; empty if it cannot, but through other links."""
    if target.startswith("/"):
        return "it is a link to an absolute path"
    parts = target.split("/")
    down = next((index for index, part in enumerate(parts) if part not in ("..", ".", "")), len(parts))
    if ".." in parts[down:]:
        return "it is a link that goes down and up again"  # where that leads depends on other links
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if joined == ".." or joined.startswith("../"):
        return "it is a link out of the project"
    if any(plain(part) in GIT_NAMES for part in joined.split("/")):
        return "it is a link into a repository"
    return ""
