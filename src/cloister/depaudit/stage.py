"""The stage of an audit: a private home and a copy of the project, both full of canaries, gone when the audit is.

Rule 1: everything lies in one directory, which is locked as long as its audit lives; what a killed one left is removed
        by the next command (session/cleanup.py) or the next audit.
Rule 2: nothing of the user's configuration that may be a secret comes along: no credential, no variable.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from cloister.config import directories
from cloister.config.directories import Project
from cloister.depaudit import project_copy
from cloister.depaudit.canaries import Canary, texts
from cloister.system import files

LOCK = "audit.lock"
# Files that are there on most machines, so that a change is told from a new file, and its opener can be caught.
BAIT = {
    "~/.bashrc": "# ~/.bashrc: executed by bash(1) for non-login shells.\ncase $- in *i*) ;; *) return;; esac\n",
    "~/.profile": "# ~/.profile: executed by the command interpreter for login shells.\n",
    "~/.zshrc": "# ~/.zshrc\nautoload -Uz compinit\n",
    "./.git/hooks/pre-commit.sample": "",  # of project_copy.py
}
# pip refuses to touch a system's packages unless it is told to; here nothing of the system can be touched.
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_VARIABLES = {"PIP_BREAK_SYSTEM_PACKAGES": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where everything is. `notes` say what of the project was not copied."""

    project: Project
    canaries: tuple[Canary, ...]
    notes: tuple[str, ...]

    @property
    def roots(self) -> dict[str, str]:
        """How the two directories are shown, and where they are."""
        return {"~": self.project.home, ".": self.project.workspace}

    def locate(self, shown: str) -> str:
        """The host's path of "~/…" or "./…"."""
        root, _, below = shown.partition("/")
        return f"{self.roots[root]}/{below}"

    def watched(self) -> dict[str, str]:
        """Name → path of every file that nobody should open for nothing."""
        found = {one.name: self.locate(one.path) for one in self.canaries if one.path}
        return found | {path: self.locate(path) for path in BAIT}


@contextmanager
def made(
    workspace: str, cwd: str, environ: Mapping[str, str], canaries: tuple[Canary, ...]
) -> Iterator[Stage]:
    """Make the stage for the workspace's project; remove it at the end."""
    _remove_abandoned(directories.state_directory(environ))
    project = directories.throwaway(workspace, environ, os.urandom(6).hex())
    files.make_private_directory(project.state)
    lock = os.open(f"{project.state}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        files.make_private_directory(project.home)
        notes = project_copy.copy(workspace, project.workspace, home=directories.home(environ))
        if cwd.startswith(f"{workspace}/"):
            os.makedirs(project.workspace + cwd[len(workspace) :], exist_ok=True)
        stage = Stage(project=project, canaries=canaries, notes=notes)
        _plant(stage)
        yield stage
    finally:
        files.remove_tree(project.state)
        os.close(lock)


def adapted(
    plan: dict[str, object], canaries: tuple[Canary, ...], environment: Mapping[str, str]
) -> dict[str, object]:
    """The plan of the audited sandbox: no credentials, the canaries, install scripts run, every request is read."""
    sandbox, policy = plan["sandbox"], plan["policy"]
    if not isinstance(sandbox, dict) or not isinstance(policy, dict):
        raise TypeError("the plan has no sandbox or no policy")
    planted = {one.variable: one.content for one in canaries if one.variable}
    return {
        **plan,
        "sandbox": {
            **sandbox,
            "environment": {**_VARIABLES, **planted, **environment},
            "pass_environment": [],
            "files": {},
            "unmask": [],
            "protect": [],
            "ssh_to_https": [],
        },
        "policy": {**policy, "credentials": [], "passthrough": [], "grants": _read(policy["grants"])},
        "ssh": {"agent": False, "keys": [], "hosts": [], "confirm": False},
        "packages": {"install_scripts": True, "sdists": True, "environment": {}, "files": {}, "unset": []},
        "watch": {"canaries": {name: list(found) for name, found in texts(canaries).items()}},
    }


def _read(grants: list[dict[str, object]]) -> list[dict[str, object]]:
    """The same grants, with every method spelled out where none is: such requests are read, not spliced."""
    return [
        {**grant, "methods": grant["methods"] or list(_METHODS)} if grant["transport"] == "web" else grant
        for grant in grants
    ]


def _plant(stage: Stage) -> None:
    contents = {one.path: one.content for one in stage.canaries if one.path}
    contents |= {path: text for path, text in BAIT.items() if text}
    for shown, content in contents.items():
        path = stage.locate(shown)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with suppress(FileExistsError):  # the project's own, which holds no secret
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(content)


def _remove_abandoned(state_directory: str) -> None:
    """What an audit left that was killed before its sandbox had begun."""
    for runs in directories.all_runs(state_directory):
        state = os.path.dirname(runs)
        if not Project(workspace="", state=state).throwaway or os.path.isdir(runs):
            continue  # with a record: session/cleanup.py
        try:
            lock = os.open(f"{state}/{LOCK}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it is just being made
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files.remove_tree(state)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
