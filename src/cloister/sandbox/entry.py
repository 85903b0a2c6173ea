"""What a later process needs to enter a live sandbox with the confinement of its first one.

Written before the sandbox starts, beside its record and removed with it. Where it is read (`runtimes/enter.py`) is the
user's own side: nothing of it comes from within the sandbox.
"""

from __future__ import annotations

from cloister.lean import json
from cloister.system import files
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.sandbox.spec import SandboxSpec

SUFFIX = ".entry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How a sandbox's processes run. `pids` and `memory_bytes` are None where a cgroup holds the limits, or nothing."""

    workspace: str
    home: str
    shell: str
    environment: tuple[tuple[str, str], ...]
    seccomp_file: str
    cgroup: str = ""  # its directory
    pids: int | None = None
    memory_bytes: int | None = None


def of(spec: SandboxSpec, *, seccomp_file: str, cgroup: str) -> Entry:
    """The entry of a sandbox of `spec`. Without a cgroup, rlimits hold its limits."""
    return Entry(
        workspace=spec.workspace,
        home=spec.home,
        shell=dict(spec.environment).get("SHELL", "/bin/sh"),
        environment=spec.environment,
        seccomp_file=seccomp_file,
        cgroup=cgroup,
        pids=None if cgroup else spec.limits.pids,
        memory_bytes=None if cgroup else spec.limits.memory_bytes,
    )


def store(path: str, entry: Entry) -> None:
    """Keep it, for the user alone."""
    content = {
        "workspace": entry.workspace,
        "home": entry.home,
        "shell": entry.shell,
        "environment": dict(entry.environment),
        "seccomp_file": entry.seccomp_file,
        "cgroup": entry.cgroup,
        "pids": entry.pids,
        "memory_bytes": entry.memory_bytes,
    }
    files.write_atomic(path, json.dumps(content).encode())


def load(path: str) -> Entry | None:
    """The stored entry; None if there is none that can be understood."""
    text = files.read(path)
    try:
        data = json.loads(text) if text is not None else None
        return None if data is None else Entry(**{**data, "environment": tuple(data["environment"].items())})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
