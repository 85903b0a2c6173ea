"""What was seen of one audited command: values, from the clerks to the judges.

Rule 1: paths are as a person would write them: `~/…` in the home, `./…` in the workspace, else absolute.
Rule 2: every text from the sandbox is untrusted: it is cut where it is taken, and escaped where it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Code of a package that ran because it was installed or built. `package` is empty if it could not be told.

    `stage` is the lifecycle event ("postinstall"), the hook of a build backend ("build_wheel"), "setup.py" or
    "build.rs".
    """

    package: str
    version: str
    stage: str
    command: str
    own: bool = False  # the project's own, not a dependency's

    @property
    def title(self) -> str:
        """As in "evil@1.0.0 postinstall"."""
        name = self.package or "(unnamed)"
        return f"{name}@{self.version} {self.stage}" if self.version else f"{name} {self.stage}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A program that was started. `script` is an index into `Observation.scripts`; None: the command's own."""

    pid: int
    parent: int
    path: str
    arguments: tuple[str, ...]
    directory: str
    script: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A watched file that was opened. `program` is the opener's argv, empty if it could not be told."""

    name: str  # the canary's, or the bait's path
    writing: bool
    program: tuple[str, ...] = ()
    script: int | None = None
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file that is new or changed afterwards, or was there for a while.

    `how` is "new", "changed", "removed" or "passing".
    """

    path: str
    how: str
    executable: bool = False
    script: int | None = None  # that ran when it was first seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A host that was asked for, by name or address; `requests` are "POST /path", no query.

    `how` is "allowed", "refused" or "unreachable" (allowed, but it could not be connected).
    """

    host: str
    how: str
    times: int
    requests: tuple[str, ...] = ()
    reason: str = ""  # of the first refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A canary on its way out. It did not get there."""

    canary: str
    target: str
    how: str  # "in a DNS name", "in a request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """An entry of a lock file that does not come from a registry: `kind` is "git", "url" or "index"."""

    file: str
    package: str
    kind: str
    source: str
    pinned: bool  # by a commit or a digest
    cleartext: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything. `code` is the command's exit code as a shell gives it."""

    command: tuple[str, ...]
    code: int
    timed_out: bool
    duration_s: float
    scripts: tuple[Script, ...] = ()
    processes: tuple[Process, ...] = ()
    processes_left_out: int = 0
    opened: tuple[Opened, ...] = ()
    written: tuple[Written, ...] = ()
    asked: tuple[Asked, ...] = ()
    sent: tuple[Sent, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    notes: tuple[str, ...] = ()
