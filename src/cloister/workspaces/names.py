"""The names of sandboxes' workspaces and of worktrees, which become directories, branches and arguments.

Rule 1: no I/O. What is not plainly harmless in a path, a ref and an argv alike is refused.
"""

from __future__ import annotations

import re

from cloister.errors import UsageError

LENGTH_LIMIT = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
BRANCHES = "cloister/"  # branches of clones, in the user's repository


def check(untrusted_name: str, *, what: str) -> str:
    """The name itself. UsageError, which names `what` it is for, if it is none."""
    reason = _reason_against(untrusted_name)
    if reason:
        shown = untrusted_name if len(untrusted_name) <= LENGTH_LIMIT else f"{untrusted_name[:LENGTH_LIMIT]}…"
        raise UsageError(
            f"{shown!a} is no name for {what}: {reason}",
            details=f"expected: 1 to {LENGTH_LIMIT} of the letters a-z and A-Z, digits, '.', '_' and '-', "
            "beginning with a letter or digit",
            resolution="choose another name, such as 'fix-login'",
        )
    return untrusted_name


def _reason_against(name: str) -> str:
    if not name:
        return "it is empty"
    if len(name) > LENGTH_LIMIT:
        return f"it has {len(name)} characters"
    if name.startswith("-"):
        return "it would be taken for an option"
    if "/" in name or ".." in name:
        return "it would lead to another directory"
    if _NAME.fullmatch(name) is None:
        found = next((c for c in name if not (c.isascii() and (c.isalnum() or c in "._-"))), name[0])
        return (
            f"it contains {found!a}" if found != name[0] or found not in "._" else f"it begins with {found!r}"
        )
    if name.endswith((".", ".lock")) or name == "HEAD":  # git-check-ref-format(1)
        return "git does not take it for a branch"
    return ""


def branch(name: str) -> str:
    """The branch on which a clone of this name works, and comes back."""
    return f"{BRANCHES}{name}"
