"""Notice that the host replaces what is protected, where the sandbox's own mounts cannot be seen: in a virtual machine.

The kernel takes a mount away when the name below it is replaced or removed (docs/adr/0103); the sandbox could then
write there. On this kernel runtimes/mount_guard.py sees that in the sandbox's mount table; else names are watched.

Rule 1: whatever of them is another file than at the start stops the sandbox: nobody can put the mount back.
"""

from __future__ import annotations

import os

from cloister.errors import HostError
from cloister.sandbox.spec import Bind, SandboxSpec
from cloister.sandbox.workspace import contains
from cloister.system import linux

_EVENTS_BYTES = 1 << 16


class HostWatch:
    """Watches the mount points of a spec that lie in the workspace, which is at `source` on the host.

    `fileno` can be read when something has changed beside one of them; then `check`.
    """

    def __init__(self, spec: SandboxSpec, source: str) -> None:
        self._seen = {path: _identity(path) for path in points(spec, source)}
        self._descriptor = linux.watch_directories(sorted({os.path.dirname(path) for path in self._seen}))

    def settle(self) -> None:
        """All is mounted: what the engine has made to mount on counts as it is now."""
        self._seen = {path: seen or _identity(path) for path, seen in self._seen.items()}

    def fileno(self) -> int:
        return self._descriptor

    def check(self) -> None:
        """Look at all of them. HostError if one is not what it was."""
        os.read(self._descriptor, _EVENTS_BYTES)
        for path, seen in self._seen.items():
            if _identity(path) != seen:
                raise HostError(
                    f"a program of this host replaced {path!r}, which is protected, so the sandbox was stopped",
                    details="in a virtual machine its protection cannot be put back",
                    resolution="start it again",
                )

    def close(self) -> None:
        os.close(self._descriptor)


def points(spec: SandboxSpec, source: str) -> list[str]:
    """Where on the host the workspace's mount points are."""
    inside = spec.workspace
    return [
        source + one.target[len(inside) :]
        for one in spec.mounts
        if not isinstance(one, Bind) or not one.writable
        if one.target != inside and contains(inside, one.target)
    ]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
