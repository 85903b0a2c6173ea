"""Run the host's git where a sandbox may have written: the only module that does (ATTACKS FS-5).

Rule 1: in a scratch git directory (scratch.py), never in the repository itself; with the environment of
gitsettings.py and nothing of the user's.
Rule 2: a deadline and a limit of output; what it prints reaches a person only as text that cannot paint a terminal.
Rule 3: git is the host's own, from its system directories: one on PATH could be the agent's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cloister.config.wording import visible
from cloister.errors import HostError, RepositoryError
from cloister.system import proc
from cloister.workspaces import gitsettings
from cloister.workspaces.scratch import Scratch

TIMEOUT_S = 600.0
LIMIT_BYTES = 256 << 20
SHOWN_LINES = 12
_PLACES = ("/usr/local/bin", "/usr/bin", "/bin", "/run/current-system/sw/bin")


def program() -> str | None:
    """The host's git, or None."""
    return next((path for place in _PLACES if os.access(path := f"{place}/git", os.X_OK)), None)


def run(
    scratch: Scratch,
    arguments: Sequence[str],
    *,
    work_tree: str | None = None,
    index: str | None = None,
    settings: Sequence[str] = (),
    optional_codes: Sequence[int] = (),
) -> bytes:
    """Its output. RepositoryError, with what it said, if it ends with another code than 0 or `optional_codes`.

    `settings`: KEY=VALUE, for this command alone.
    """
    environment = gitsettings.environment(scratch.home)
    environment["GIT_DIR"] = scratch.git_directory
    if work_tree is not None:
        environment["GIT_WORK_TREE"] = work_tree
    if index is not None:
        environment["GIT_INDEX_FILE"] = index
    options = [part for setting in settings for part in ("-c", setting)]
    where = ["-C", work_tree or scratch.git_directory, *options]
    return _finished(where, arguments, environment, optional_codes)


def run_on_files(directory: str, arguments: Sequence[str], *, optional_codes: Sequence[int] = ()) -> bytes:
    """As `run`, for `diff --no-index` and `merge-file` on files of ours in `directory`: in no repository."""
    environment = gitsettings.environment(directory)
    environment["GIT_CEILING_DIRECTORIES"] = os.path.dirname(directory)
    return _finished(["-C", directory], arguments, environment, optional_codes)


def _finished(
    options: Sequence[str],
    arguments: Sequence[str],
    environment: dict[str, str],
    optional_codes: Sequence[int],
) -> bytes:
    git = program()
    if git is None:
        raise HostError("git is not installed on this host", resolution="apt-get install git")
    argv = [git, "--no-pager", *options, *arguments]
    try:
        done = proc.capture(argv, environment=environment, timeout_s=TIMEOUT_S, limit_bytes=LIMIT_BYTES)
    except TimeoutError as error:
        raise RepositoryError(f"`git {arguments[0]}` did not end within {TIMEOUT_S:g} s") from error
    except proc.OutputLimitError as error:
        raise RepositoryError(f"`git {arguments[0]}` printed more than {LIMIT_BYTES >> 20} MiB") from error
    if done.code != 0 and done.code not in optional_codes:
        raise RepositoryError(f"`git {arguments[0]}` failed", details=_said(done.errors))
    return done.output


def _said(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().split("\n")
    return "\n".join(visible(line)[:400] for line in lines[:SHOWN_LINES])
