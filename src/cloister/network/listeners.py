"""Which processes listen on a TCP port of this machine, for a message; and whether one of a sandbox does.

Rule 1: what cannot be looked at (another user's process) is left out; nothing here fails.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cloister.system import files
from cloister.values import dataclass

_LISTEN = "0A"  # include/net/tcp_states.h
_HOLDERS_LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process, by its command's name."""

    pid: int
    name: str


def holders(port: int) -> tuple[Holder, ...]:
    """The processes that listen on `port`, as far as this user may know."""
    tables = [files.read(f"/proc/self/net/{name}") or b"" for name in ("tcp", "tcp6")]
    inodes = frozenset[int]().union(
        *(listening_inodes(table.decode("ascii", "replace"), port) for table in tables)
    )
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return ()
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    found = [Holder(pid=pid, name=_name(pid)) for pid in pids if _holds(pid, wanted)]
    return tuple(found[:_HOLDERS_LIMIT])


def listens(pid: int, port: int) -> bool | None:
    """Whether anything listens on `port` in the network namespace of a process. None if that cannot be seen."""
    try:
        tables = [files.read(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    except OSError:
        return None
    if tables[0] is None:
        return None
    return any(listening_inodes((table or b"").decode("ascii", "replace"), port) for table in tables)


def listening_inodes(table: str, port: int) -> frozenset[int]:
    """The inodes of listening sockets on `port` in the text of /proc/net/tcp or tcp6 (proc(5))."""
    rows = (line.split() for line in table.splitlines()[1:])
    return frozenset(
        int(row[9])
        for row in rows
        if len(row) > 9 and row[3] == _LISTEN and row[1].rpartition(":")[2] == f"{port:04X}"
    )


def _holds(pid: int, wanted: set[str]) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False  # it has ended, or is another user's
    for descriptor in descriptors:
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                return True
    return False


def _name(pid: int) -> str:
    try:
        return (files.read(f"/proc/{pid}/comm") or b"").decode(errors="replace").strip() or "?"
    except OSError:
        return "?"
