"""Memory, CPU and process limits by cgroup v2, where a part of the tree is delegated to this user.

Rule 1: nothing is changed outside the cgroup that this process is in.
Rule 2: where a controller is missing the caller is told which limits hold, so that it can fall back to rlimits and
        `doctor` can say so; a limit is never silently dropped.

See Documentation/admin-guide/cgroup-v2.rst, "Delegation" and "No Internal Process Constraint".
"""

from __future__ import annotations

import os

from cloister.values import dataclass

CONTROLLERS = ("memory", "cpu", "pids")
DEFAULT_CPUS = 4.0  # of a sandbox whose configuration names no limit
_CPU_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """The cgroup that may hold sandboxes, and the controllers that work there. `directory` is empty for none."""

    directory: str = ""
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A sandbox's cgroup."""

    directory: str


def delegation(
    process_cgroups: str, mounts: tuple[str, ...] = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
) -> Delegation:
    """What is delegated to this process; `process_cgroups` is the text of /proc/self/cgroup."""
    for line in process_cgroups.splitlines():
        if not line.startswith("0::"):
            continue
        for mount in mounts:
            directory = mount + line[3:].rstrip("/")
            available = _words(f"{directory}/cgroup.controllers")
            if available is None:
                continue
            usable = os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)
            found = frozenset(available) & frozenset(CONTROLLERS)
            return Delegation(directory=directory, controllers=found) if usable and found else Delegation()
    return Delegation()


def create(
    where: Delegation, name: str, *, memory_bytes: int | None, cpus: float | None, pids: int | None
) -> Group | None:
    """Make a limited cgroup for one sandbox; None if the kernel refuses (the caller uses rlimits then).

    This process moves to a leaf of its own: a cgroup with processes cannot hand controllers to its children.
    """
    if not where.controllers:
        return None
    leaf, group = f"{where.directory}/cloister-session", f"{where.directory}/cloister-{name}"
    try:
        enabled = set(_words(f"{where.directory}/cgroup.subtree_control") or ())
        missing = where.controllers - enabled
        if missing:
            os.makedirs(leaf, exist_ok=True)
            _write(f"{leaf}/cgroup.procs", str(os.getpid()))
            _write(
                f"{where.directory}/cgroup.subtree_control", " ".join(f"+{one}" for one in sorted(missing))
            )
        os.mkdir(group)
        if "memory" in where.controllers and memory_bytes is not None:
            _write(f"{group}/memory.max", str(memory_bytes))
            _write_if_present(f"{group}/memory.swap.max", "0")
            _write_if_present(f"{group}/memory.oom.group", "0")
        if "cpu" in where.controllers and cpus is not None:
            _write(f"{group}/cpu.max", f"{int(cpus * _CPU_PERIOD_US)} {_CPU_PERIOD_US}")
        if "pids" in where.controllers and pids is not None:
            _write(f"{group}/pids.max", str(pids))
    except OSError:
        remove(group)
        return None
    return Group(directory=group)


def enter(group: Group) -> None:
    """Move this process, and so all its future children, into `group`."""
    _write(f"{group.directory}/cgroup.procs", str(os.getpid()))


def remove(directory: str) -> None:
    """Kill what is left in a sandbox's cgroup and remove it. Idempotent."""
    _write_if_present(f"{directory}/cgroup.kill", "1")
    try:
        os.rmdir(directory)
    except OSError:
        return  # gone, never made, or its last process is still exiting: the next command's sweep tries again


def _words(path: str) -> list[str] | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except OSError:
        return None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _write_if_present(path: str, text: str) -> None:
    if os.path.exists(path):
        _write(path, text)
