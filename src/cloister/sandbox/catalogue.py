"""The kept sandboxes of a project: what `cloister up` made, running or not, so that it can be started again.

    <state>/sandboxes/<name>.json   what it is
    <state>/sandboxes/<name>.log    what its supervisor said
    <state>/sandboxes/<name>.lock   held while it is started or removed

Rule 1: a description outlives the sandbox, a reboot and a `kill -9`; only `cloister rm` removes it.
Rule 2: a name is safe as a file's name, on every command line, and as a part of a container's name.
"""

from __future__ import annotations

import json
import os

from cloister.config import directories
from cloister.errors import UsageError
from cloister.sandbox import registry
from cloister.system import files
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.config.directories import Project

DEFAULT_NAME = "main"
NAME_LIMIT = 32
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One kept sandbox. `overrides` is what the command line of its `up` changed of the configuration, as JSON."""

    name: str
    workspace: str
    created: float  # seconds since 1970
    runtime: str = "embedded"
    profile: str = ""
    overrides: dict[str, object] | None = None


def check_name(name: str) -> str:
    """The name itself. UsageError unless it is one."""
    wrong = not 0 < len(name) <= NAME_LIMIT or name[0] in ".-_" or not _NAME_CHARACTERS.issuperset(name)
    if wrong:
        raise UsageError(
            f"{name[:80]!r} cannot be a sandbox's name",
            details=f"expected: at most {NAME_LIMIT} of a-z, 0-9, '.', '_', '-', beginning with a letter or digit",
            resolution="for example: --name review",
        )
    return name


def store(project: Project, kept: Kept) -> None:
    """Write it down, or replace it."""
    content = {name: getattr(kept, name) for name in Kept.__slots__}
    files.make_private_directory(project.sandboxes)
    files.write_atomic(path_of(project, kept.name), json.dumps(content).encode())


def load(project: Project, name: str) -> Kept | None:
    """The kept sandbox of that name; None if there is none, or what is stored cannot be understood."""
    text = files.read(path_of(project, name))
    try:
        return None if text is None else Kept(**json.loads(text))
    except (ValueError, TypeError):
        return None


def remove(project: Project, name: str) -> None:
    """Forget it. Idempotent."""
    for path in (path_of(project, name), log_of(project, name), lock_of(project, name)):
        files.remove(path)


def forget_empty(project: Project) -> None:
    """Remove what holds nothing of the project any more, if it keeps no sandbox; its plan is compiled anew.

    What a person may want stays: the audit log, the adopted configuration, what was taken away.
    """
    for path in (project.sandboxes, project.runs, os.path.join(project.state, "workspaces")):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:  # something is in it
            return
    files.remove(project.plan)
    files.remove(os.path.join(project.state, ".lock"))
    try:
        os.rmdir(project.state)
    except OSError:
        return


def all_of(project: Project) -> Iterator[Kept]:
    """Every kept sandbox, by name."""
    try:
        names = sorted(os.listdir(project.sandboxes))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(_SUFFIX):
            kept = load(project, name.removesuffix(_SUFFIX))
            if kept is not None:
                yield kept


def live(project: Project, name: str) -> registry.Record | None:
    """The record of the kept sandbox of that name, if its session lives."""
    for record in registry.records(project.runs):
        if record.name == name and registry.alive(record.session):
            return record
    return None


def around(directory: str, name: str, environ: Mapping[str, str]) -> Project | None:
    """The nearest project at or above `directory` that keeps a sandbox of that name."""
    while True:
        project = directories.project(directory, environ)
        if os.path.exists(path_of(project, name)):
            return project
        if directory == "/":
            return None
        directory = os.path.dirname(directory)


def path_of(project: Project, name: str) -> str:
    """The file of its description."""
    return os.path.join(project.sandboxes, f"{name}{_SUFFIX}")


def log_of(project: Project, name: str) -> str:
    """What its supervisor said, since it was started last."""
    return os.path.join(project.sandboxes, f"{name}.log")


def lock_of(project: Project, name: str) -> str:
    """Held by who starts, stops or removes it."""
    return os.path.join(project.sandboxes, f"{name}.lock")
