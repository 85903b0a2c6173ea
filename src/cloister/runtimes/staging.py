"""Run as root without giving the sandbox root: an unprivileged agent uid, and owners mapped where root's files
are shared.

As root, the agent must not be uid 0 of the host: a file it creates would be root's, `/proc/sys` writable,
and a SUID bit on it deadly. So the agent's uid on the host is the workspace's owner, or, if that is root
too, `AGENT_HOST_ID`, and everything of the user's that the sandbox sees is bound through a mount that maps
its owner to that uid (mount_setattr(2), MOUNT_ATTR_IDMAP): the sandbox reads and writes the files as their
owner would, and the disk never sees the agent's uid.

Rule 1: this happens in a private mount namespace; nothing appears on the host.
Rule 2: where the file system cannot be mapped, the start is refused, and never continues as uid 0.
Rule 3: what is mapped is not recursive: file systems mounted below the workspace are not shared.
"""

from __future__ import annotations

import errno
import os
import stat

from cloister.errors import HostError
from cloister.lean import signal, suppress
from cloister.sandbox.spec import Bind, SandboxSpec
from cloister.sandbox.workspace import contains
from cloister.system import linux
from cloister.values import dataclass, replace

# Above every range that distributions hand out in /etc/subuid, below 2^31 - 1. See docs/adr/0003-root.md.
AGENT_HOST_ID = 1_900_000_000
DIRECTORY = "/run"  # of the private mount namespace: a tmpfs that the unprivileged agent uid can traverse

# What every user of the host can read anyway is bound directly.
_SHARED_ROOTS = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/snap",
    "/dev",
    "/proc",
    "/sys",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One host path cloned into the staging directory. `owner` is (uid, gid) on disk."""

    source: str
    staged: str
    owner: tuple[int, int]
    directory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What to stage, and the uid and gid that the agent has on the host."""

    uid: int
    gid: int
    trees: tuple[Tree, ...]


def agent_ids(workspace: str) -> tuple[int, int]:
    """The uid and gid that the agent has on the host if root starts it: the workspace's owner's, never root's."""
    owner = os.stat(workspace)
    uid = owner.st_uid or AGENT_HOST_ID
    return uid, owner.st_gid if owner.st_uid and owner.st_gid else uid


def plan(spec: SandboxSpec, *, directory: str = DIRECTORY, public: tuple[str, ...] = ()) -> Staging:
    """Look at the sources of `spec`'s binds and lay out the staging `directory`. OSError if one vanished.

    What lies below one of `public` is bound directly: every user may read it once it is bound.
    """
    uid, gid = agent_ids(spec.workspace)
    sources = sorted(
        {
            bind.source
            for bind in spec.mounts
            if isinstance(bind, Bind)
            and not _shared(bind.source)
            and not any(contains(one, bind.source) for one in public)
        }
    )
    trees: list[Tree] = []
    for source in sources:
        if any(contains(tree.source, source) for tree in trees):
            continue  # reached through the tree above it
        try:
            status = os.stat(source)
        except FileNotFoundError:
            continue  # an optional bind; bwrap says so if it was not
        trees.append(
            Tree(
                source=source,
                staged=f"{directory}/{len(trees)}",
                owner=(status.st_uid, status.st_gid),
                directory=stat.S_ISDIR(status.st_mode),
            )
        )
    return Staging(uid=uid, gid=gid, trees=tuple(trees))


def rebase(spec: SandboxSpec, staging: Staging) -> SandboxSpec:
    """`spec` with the sources of its binds replaced by where they are staged."""
    return replace(
        spec,
        mounts=tuple(
            replace(mount, source=locate(mount.source, staging)) if isinstance(mount, Bind) else mount
            for mount in spec.mounts
        ),
    )


def enter(staging: Staging) -> None:
    """In the plumber, as root: make the mounts, then become the agent's uid for good."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
    clones = _clones(staging)
    linux.mount("tmpfs", DIRECTORY, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=64k")
    _attach(staging, clones)
    os.setgroups([])
    os.setresgid(staging.gid, staging.gid, staging.gid)
    os.setresuid(staging.uid, staging.uid, staging.uid)
    # Changing uid made /proc/self root's again; uid_map must be writable for what comes next (proc(5)).
    linux.prctl(linux.PR_SET_DUMPABLE, 1)


def attach(staging: Staging) -> None:
    """As root: make the mounts where a container engine, which binds them, finds them; see `detach`.

    Their directory is private, so nobody else reaches them; the engine's containers keep mounts of their own.
    """
    _attach(staging, _clones(staging))


def detach(directory: str) -> None:
    """Take away what `attach` has mounted in a directory, and the directory. Idempotent."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        path = f"{directory}/{name}"
        with suppress(OSError):  # not mounted (yet): an empty mount point
            linux.umount2(path, linux.MNT_DETACH)
        if os.path.isdir(path):
            os.rmdir(path)  # fails if it is mounted still: what is in it is the user's
        else:
            os.unlink(path)
    os.rmdir(directory)


def _clones(staging: Staging) -> list[int]:
    """Detached mounts of the trees, in order, their owners mapped."""
    maps: dict[tuple[int, int], int] = {}
    clones = []
    for tree in staging.trees:
        # A mapped clone is not recursive (Rule 3); AT_RECURSIVE would fail as soon as one submount cannot be mapped.
        clone = linux.open_tree(tree.source, linux.OPEN_TREE_CLONE)
        if tree.owner != (staging.uid, staging.gid):
            if tree.owner not in maps:
                maps[tree.owner] = _owner_map(tree.owner, staging)
            _map(clone, maps[tree.owner], tree.source)
        clones.append(clone)
    return clones


def _attach(staging: Staging, clones: list[int]) -> None:
    for tree, clone in zip(staging.trees, clones, strict=True):
        if tree.directory:
            os.mkdir(tree.staged)
        else:
            os.close(os.open(tree.staged, os.O_CREAT | os.O_CLOEXEC))
        linux.move_mount(clone, tree.staged)
        os.close(clone)


def _map(clone: int, user_namespace: int, source: str) -> None:
    try:
        linux.mount_setattr_idmap(clone, user_namespace)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise HostError(
            f"as root, {source!r} cannot be shared with the sandbox safely",
            details="its file system does not support ID-mapped mounts, and the agent must not run as the host's root",
            resolution="run cloister as an ordinary user, or keep the project on ext4, xfs, btrfs or tmpfs",
        ) from error


def _owner_map(owner: tuple[int, int], staging: Staging) -> int:
    """A user namespace whose maps say: `owner` on disk is the agent's uid and gid here."""
    ready, release = os.pipe()
    parent_ready, parent_release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(parent_release)  # the end of the parent is the end of the read below
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(release, b".")
            os.read(parent_ready, 1)
        finally:
            os._exit(0)
    try:
        os.close(release)
        if not os.read(ready, 1):
            raise OSError(errno.EUSERS, "a user namespace could not be made")
        for name, inside, outside in (("uid", owner[0], staging.uid), ("gid", owner[1], staging.gid)):
            descriptor = os.open(f"/proc/{child}/{name}_map", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{inside} {outside} 1".encode())
            finally:
                os.close(descriptor)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for descriptor in (ready, parent_ready, parent_release):
            os.close(descriptor)


def locate(source: str, staging: Staging) -> str:
    """Where the host path `source` is to be found after `enter`."""
    for tree in staging.trees:
        if contains(tree.source, source):
            return tree.staged + source[len(tree.source) :]
    return source


def _shared(path: str) -> bool:
    return any(contains(root, path) for root in _SHARED_ROOTS)
