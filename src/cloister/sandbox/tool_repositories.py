"""Is there a git repository in the directories that tools make (protect.SKIPPED)?

Nobody starts git there, but git itself does: `git status` runs in every directory that the index or a branch names as a
submodule, whatever .gitmodules says, and obeys the configuration of the repository that it finds (`core.fsmonitor`).

Rule 1: no link is followed. What cannot be listed, but could be made readable by its owner, counts as a repository.
Rule 2: this only asks; quarantine.py looks at what there is, and does not trust the answer.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def hold_repository(directories: Iterable[str]) -> bool:
    """Tell whether a name `.git` is anywhere below `directories`."""
    pending = list(directories)
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name == ".git":
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False
