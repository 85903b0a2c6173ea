"""What sandboxes may leave behind, looked for in the whole machine; and what a living gateway holds.

Rule 1: only what can belong to a given world is reported: others work on the same machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cloister.sandbox import registry
from tests.soak.lives import Traces
from tests.world import Cloister

_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock")


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a process holds."""

    rss_kib: int
    descriptors: int
    threads: int
    children: int


def held(pid: int) -> Held:
    """Of a living process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return Held(
        rss_kib=int(status["VmRSS"].split()[0]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
        children=len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
    )


def temporary() -> Iterator[str]:
    """What lies in the machine's temporary directories."""
    for directory in _TEMPORARY:
        with suppress(OSError):
            yield from (entry.path for entry in os.scandir(directory))


def found(cloister: Cloister, traces: Traces) -> Iterator[str]:
    """Whatever is left of the sandboxes of this world, in words."""
    base = str(cloister.base)
    for pid in cloister.processes():
        if _runs(pid):
            yield f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
    yield from _held_namespaces(traces)
    for directory in traces.cgroups:
        if os.path.exists(directory):
            yield f"cgroup {directory}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if base in line or any(sandbox in line for sandbox in traces.sandboxes):
            yield f"mount {line}"
    for line in Path("/proc/net/unix").read_text().splitlines():
        if base in line or any(sandbox in line for sandbox in traces.sandboxes):
            yield f"socket {line}"
    for path in temporary():
        if any(sandbox in path for sandbox in traces.sandboxes):
            yield f"temporary file {path}"
    yield from _files(cloister)


def _held_namespaces(traces: Traces) -> Iterator[str]:
    """Namespaces live as long as a process, a descriptor or a mount has them."""
    own = {os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if not _runs(int(pid)):  # a zombie keeps some until the machine's init has taken note of it
            continue
        with suppress(OSError):
            started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
            for path in [*Path(f"/proc/{pid}/ns").iterdir(), *Path(f"/proc/{pid}/fd").iterdir()]:
                target = _link(path)
                if target not in own and started <= traces.namespaces.get(target, 0):
                    name = (
                        Path(f"/proc/{pid}/cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                    )
                    yield f"namespace {target}, held by {path}: {name}"


def _runs(pid: int) -> bool:
    try:
        return registry.identify(pid) is not None
    except OSError:
        return False


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _files(cloister: Cloister) -> Iterator[str]:
    state = cloister.state
    for path in (state / "runs").iterdir():
        yield f"record {path}"
    for path in state.rglob("*.tmp"):
        yield f"half-written {path}"
    allowed = {"results"}
    for name in os.listdir(cloister.project):
        if name not in allowed:
            yield f"in the workspace: {name}"
    scratch = cloister.base / "tmp"
    for path in scratch.iterdir() if scratch.exists() else ():
        yield f"temporary file {path}"
