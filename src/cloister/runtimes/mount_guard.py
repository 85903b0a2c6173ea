"""Put back the mounts that protect a workspace when the host takes them away.

A mount lies upon a name. When a program of the host replaces that name (rename(2), as `git config` and editors do), or
removes it, the kernel detaches the mount in every other mount namespace (since Linux 3.19): in the sandbox the new
file is writable. The kernel tells of each change of a mount table (poll on mountinfo, proc(5)), so it is put back.

Rule 1: what cannot be put back ends the sandbox; the caller does. In a container of an engine that runs as another
user, nothing can be.
Rule 2: between the two the sandbox could write (well under a millisecond passes, but it may wait for it): settings
that git executes, and that were not there before, are told.
Rule 3: the mounts are made by a process of ours in the sandbox's mount namespace that runs nothing else there, and
follows no link.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from cloister.errors import CloisterError
from cloister.runtimes import mount_check
from cloister.sandbox import gitclean, placeholders
from cloister.sandbox.protect import Placeholder, Protection
from cloister.sandbox.view import PUBLIC
from cloister.system import files, linux
from cloister.values import dataclass

_QUIET = frozenset({"HEAD", "index"})  # the host's git replaces them all the time, and nothing executes them
_LIMIT_BYTES = 1 << 20
_ATTEMPTS, _ATTEMPTS_BEFORE_PLACEHOLDERS, _PAUSE_S = 40, 5, 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the guard needs to know of its sandbox. `init`: the pid of its pid 1 on the host."""

    init: int
    sandbox_id: str
    public_directory: str
    shared: str  # cloister's own state, of all projects


class Guard:
    """Watches the mounts of one sandbox. `fileno` is to be polled for POLLPRI."""

    def __init__(self, place: Place, found: Protection, tell: Callable[[str], None]) -> None:
        self._place = place
        self._tell = tell
        self._redacted = dict(found.redacted)
        self._masked = frozenset((*found.masked_files, *found.masked_directories))
        held = (placeholder.path for placeholder in found.placeholders)
        self._parents = frozenset(found.parents)
        self._needed = self._parents.union(found.read_only, self._redacted, self._masked, held)
        self._executed = {path: _executed(path) for path in self._needed if _is_git_settings(path)}
        proc = f"/proc/{place.init}"
        self._mountinfo = os.open(f"{proc}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._mounts: int | None = (
            None  # a container's, which may be another user's: then nothing can be put back
        )
        with suppress(PermissionError):
            self._mounts = os.open(f"{proc}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        with open(f"{proc}/status", encoding="ascii", errors="replace") as file:
            ids = {
                line.split()[0]: int(line.split()[1]) for line in file if line.startswith(("Uid:", "Gid:"))
            }
        self._ids = ids["Uid:"], ids["Gid:"]

    def fileno(self) -> int:
        """The descriptor that tells of changes."""
        return self._mountinfo

    def close(self) -> None:
        """Stop watching."""
        os.close(self._mountinfo)
        if self._mounts is not None:
            os.close(self._mounts)

    def restore(self) -> tuple[str, ...]:
        """Put back what is gone; returns its paths. CloisterError for what cannot be."""
        first = lost = self._lost()
        for attempt in range(_ATTEMPTS):
            if not lost:
                break
            if attempt:
                time.sleep(
                    _PAUSE_S
                )  # the kernel tells before the name is gone; and who removes may be about to replace
            absent = [path for path in lost if not os.path.lexists(path)]
            if absent and attempt < _ATTEMPTS_BEFORE_PLACEHOLDERS:
                lost = self._mounted(set(lost) - set(absent)) or tuple(absent)
                continue
            if any(path in self._parents or not os.path.isdir(os.path.dirname(path)) for path in absent):
                break
            placeholders.acquire(self._place.shared, self._place.sandbox_id, map(Placeholder, absent))
            lost = self._mounted(lost)
        if lost:
            raise _unprotected(lost)
        for path in first:
            if path not in self._parents and os.path.basename(path) not in _QUIET:
                self._say(path)
        return first

    def _mounted(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Mount upon these paths; returns what is lost then."""
        sources = {path: self._source(path) for path in paths}
        if sources:
            self._in_the_sandbox(sources)
        return self._lost()

    def _lost(self) -> tuple[str, ...]:
        text = b""
        while part := os.pread(self._mountinfo, _LIMIT_BYTES, len(text)):
            text += part
        there = mount_check.mount_points(text.decode("utf-8", "surrogateescape"))
        return tuple(sorted(self._needed - there))

    def _source(self, path: str) -> str:
        """The path in the sandbox that is mounted upon `path`: itself, or what hides it."""
        if path in self._masked:
            return f"{PUBLIC}/empty" if not os.path.isdir(path) else ""
        if path not in self._redacted:
            return path
        from cloister.sandbox import gitconfig  # seldom: a repository whose configuration holds a credential

        name = f"restored-{os.urandom(4).hex()}"
        clean = gitconfig.redacted(files.read_text(path) or "")
        files.write_atomic(
            os.path.join(self._place.public_directory, name),
            clean.encode("utf-8", "surrogateescape"),
            mode=0o444,
        )
        return f"{PUBLIC}/{name}"

    def _in_the_sandbox(self, sources: dict[str, str]) -> None:
        """Mount each source upon its path, those of directories before those of what is in them."""
        if self._mounts is None:
            return
        child = os.fork()
        if child == 0:
            try:
                self._enter(self._mounts)
                for path in sorted(sources):
                    _mount(sources[path], path, writable=path in self._parents)
                os._exit(0)
            finally:
                os._exit(1)
        os.waitpid(child, 0)

    def _enter(self, mounts: int) -> None:
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        owner = fcntl.ioctl(mounts, linux.NS_GET_USERNS)
        ours, theirs = os.stat("/proc/self/ns/user"), os.fstat(owner)
        if (ours.st_dev, ours.st_ino) != (
            theirs.st_dev,
            theirs.st_ino,
        ):  # else a container that root's engine made
            if os.geteuid() == 0:
                uid, gid = self._ids
                os.setgroups([])
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
            linux.setns(owner, linux.CLONE_NEWUSER)
        linux.setns(mounts, linux.CLONE_NEWNS)

    def _say(self, path: str) -> None:
        self._tell(
            f"{path!r} was replaced on this machine; it is protected again. Look at it if that was not you"
        )
        if path in self._executed:
            new = _executed(path) - self._executed[path]
            if new:
                self._tell(f"{path!r} now sets {', '.join(sorted(new))}: only you should have written that")
            self._executed[path] |= new


def _mount(source: str, target: str, *, writable: bool) -> None:
    """In the sandbox: make `target` show `source`; an empty directory, read-only, for no source."""
    if not source:
        linux.mount(
            "tmpfs", target, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_RDONLY, "mode=0555,size=4k"
        )
        return
    tree = linux.open_tree(source, linux.OPEN_TREE_CLONE | linux.AT_SYMLINK_NOFOLLOW)
    if not writable:
        linux.mount_setattr_read_only(tree)
    linux.move_mount(tree, target)


def _is_git_settings(path: str) -> bool:
    return os.path.basename(path) in ("config", "config.worktree")


def _executed(path: str) -> frozenset[str]:
    """The settings of a configuration that are not known to be harmless."""
    try:
        text = files.read_text(path) or ""
    except OSError:
        return frozenset()
    return frozenset(gitclean.cleaned(text)[1])


def _unprotected(left: Iterable[str]) -> CloisterError:
    return CloisterError(
        f"{next(iter(left))!r} was replaced or removed on this machine, and could not be protected again",
        details="Your tools act on it, and the sandbox could have written it: it was stopped.",
        resolution="look at it, and start the sandbox again",
    )
