"""What a sandbox consists of, independent of the runtime that makes it.

Rule 1: mounts are applied in order; a later one may lie upon an earlier one.
Rule 2: sources are host paths, targets are paths in the sandbox; both absolute and normal.
Rule 3: values only. What is visible is decided in view.py, how it is made in runtimes/.
"""

from __future__ import annotations

from cloister.values import dataclass


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host. An `optional` one that is missing is left out."""

    source: str
    target: str
    writable: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume of a container engine that has none of the host's files (runtimes/oci_remote.py)."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Data:
    """A read-only file made of `content`."""

    target: str
    content: bytes
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class CaBundle:
    """The roots that the sandbox trusts: those of the host and the sandbox's own. Written by the gateway."""

    target: str


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A fresh, writable file system in memory. `owned`: the agent's, else root's.

    The embedded runtime heeds neither that (all there is the agent's) nor `noexec`.
    """

    target: str
    size_bytes: int | None = None
    mode: int = 0o755
    owned: bool = False
    noexec: bool = False


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link at `target` that points to `to`."""

    target: str
    to: str


@dataclass(frozen=True, slots=True)
class Directory:
    """An empty directory of the mount that contains it."""

    target: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class MaskFile:
    """An existing file of the sandbox's view is shown empty and read-only."""

    target: str


@dataclass(frozen=True, slots=True)
class MaskDirectory:
    """An existing directory of the sandbox's view is shown empty and read-only."""

    target: str


@dataclass(frozen=True, slots=True)
class Proc:
    """The process table of the sandbox's own pid namespace."""

    target: str


@dataclass(frozen=True, slots=True)
class Dev:
    """A minimal /dev: null, zero, full, random, urandom, tty, pts, shm."""

    target: str


Mount = Bind | Volume | Data | CaBundle | Tmpfs | Symlink | Directory | MaskFile | MaskDirectory | Proc | Dev


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of the whole sandbox. None: no bound."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A sandbox that a runtime can start. `uid`, `gid` and `user_name` are what the agent sees."""

    id: str
    hostname: str
    user_name: str
    uid: int
    gid: int
    home: str
    workspace: str
    cwd: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    limits: Limits
