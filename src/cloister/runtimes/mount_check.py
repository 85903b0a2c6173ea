"""Judge whether a sandbox's mounts lie where its spec says: the answer to a race with another live sandbox.

bubblewrap takes the sources of binds by path. While it does, another sandbox of the same workspace can exchange a
directory of its own making for a symbolic link, and a directory of the host's would be bound in its place. Mounts
do not move once they are made: so the command is held back (`bwrap_argv.HOLD_SCRIPT`), and the session
compares the sandbox's mountinfo with the spec.

Rule 1: no I/O. Rule 2: needed only if another sandbox of the workspace is alive; a mismatch means: do not start.
"""

from __future__ import annotations

from cloister.sandbox.spec import Bind, SandboxSpec


def misplaced(spec: SandboxSpec, mountinfo: str) -> tuple[str, ...]:
    """List targets in the workspace whose mount is missing or shows another directory (proc_pid_mountinfo(5))."""
    mounted: dict[
        str, tuple[str, str]
    ] = {}  # mount point → (device, path in its file system); the last one is on top
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            mounted[_unescaped(fields[4])] = (fields[2], _unescaped(fields[3]))
    workspace = mounted.get(spec.workspace)
    if workspace is None:
        return (spec.workspace,)
    device, root = workspace
    root = root.rstrip("/")
    return tuple(
        mount.target
        for mount in spec.mounts
        if mount.target.startswith(f"{spec.workspace}/")
        and (
            mounted.get(mount.target) != (device, root + mount.target[len(spec.workspace) :])
            if isinstance(mount, Bind)
            else mount.target not in mounted  # what hides a name must lie upon that name
        )
    )


def mount_points(mountinfo: str) -> frozenset[str]:
    """Where something is mounted."""
    lines = (line.split(" ") for line in mountinfo.splitlines())
    return frozenset(_unescaped(fields[4]) for fields in lines if len(fields) > 4)


def _unescaped(field: str) -> str:
    r"""Undo `\040` and the like."""
    if "\\" not in field:
        return field
    parts = field.split("\\")
    raw = parts[0].encode(errors="surrogateescape")
    for part in parts[1:]:
        raw += bytes([int(part[:3], 8)]) + part[3:].encode(errors="surrogateescape")
    return raw.decode(errors="surrogateescape")
