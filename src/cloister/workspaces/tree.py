"""Walk, read and copy trees of files, of which a sandbox may exchange any part while we do.

Rule 1: no symbolic link is followed, at any depth: every directory is opened from its parent, by one name.
Rule 2: what is neither file, link nor directory is never opened, only named. SUID and its kin are never copied.
Rule 3: both sides have bounds.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from cloister.errors import WorkspaceError

ENTRIES_LIMIT = 1_000_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
GIT = ".git"

Kind = Literal["file", "link", "directory", "special"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name. `path` is relative to the tree's root; `target` is a link's, `size` a file's."""

    path: str
    kind: Kind
    executable: bool = False
    privileged: bool = False  # set-user-ID, set-group-ID, sticky
    size: int = 0
    target: str = ""


def entries(root: str, *, enter: Callable[[str], bool] = lambda path: path != GIT) -> dict[str, Entry]:
    """Everything below `root`, by path. What `enter` refuses (the repository at the top) is left out whole."""
    found: dict[str, Entry] = {}
    top = f"{root}/."  # the directory itself, where `root` is a link of ours in /proc
    for directory, names, file_names, descriptor in os.fwalk(top, onerror=_refuse, follow_symlinks=False):
        prefix = "" if directory == top else f"{directory[len(top) + 1 :]}/"
        for name in (*names, *file_names):
            path = prefix + name
            if enter(path):
                with suppress(FileNotFoundError):  # it is gone already
                    found[path] = _entry(descriptor, name, path)
        if len(found) > ENTRIES_LIMIT:
            raise WorkspaceError(f"{root!r} has more than {ENTRIES_LIMIT} files")
        names[:] = sorted(name for name in names if enter(prefix + name))
    return found


def _refuse(error: OSError) -> None:
    """A directory that cannot be listed must not look empty: what is in it would count as deleted."""
    if not isinstance(error, FileNotFoundError):
        raise WorkspaceError(
            f"{error.filename!r} cannot be listed: {error.strerror}",
            details="A sandbox may take away the mode of a directory of its own.",
            resolution=f"chmod u+rwx {error.filename!r}",
        )


def _entry(descriptor: int, name: str, path: str) -> Entry:
    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return Entry(path=path, kind="link", target=os.readlink(name, dir_fd=descriptor))
    if stat.S_ISDIR(mode):
        return Entry(path=path, kind="directory")
    if not stat.S_ISREG(mode):
        return Entry(path=path, kind="special")
    return Entry(
        path=path,
        kind="file",
        executable=bool(mode & stat.S_IXUSR),
        privileged=bool(mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX)),
        size=status.st_size,
    )


@contextmanager
def parent_of(root: str, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The directory that holds `path` below `root`, as a descriptor, and the last name. OSError at a link on the way.

    `root` itself may be reached through links: it is named by the user. `make`: directories that are missing.
    """
    *parents, name = path.split("/")
    if name in ("", ".", "..") or any(part in ("", ".", "..") for part in parents):
        raise OSError(errno.EINVAL, "it is no path below the directory", path)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parents:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=descriptor)
                    _give(descriptor, part)
            following = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = following
        yield descriptor, name
    finally:
        os.close(descriptor)


@contextmanager
def opened(root: str, path: str) -> Iterator[int]:
    """A regular file below `root`, to read. OSError if it is none (any more)."""
    with parent_of(root, path) as (directory, name):
        descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        yield descriptor
    finally:
        os.close(descriptor)


def read(root: str, path: str, limit_bytes: int) -> bytes:
    """The content of a file below `root`; WorkspaceError if it is longer than the limit."""
    with opened(root, path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise WorkspaceError(f"{path!r} is longer than {limit_bytes >> 20} MiB")
    return content


def same_content(one: str, other: str, path: str) -> bool:
    """Whether a file holds the same below both roots."""
    with opened(one, path) as first, opened(other, path) as second:
        while True:
            left, right = os.read(first, _CHUNK_BYTES), os.read(second, _CHUNK_BYTES)
            if left != right:
                return False
            if not left:
                return True


def look(directory: int, name: str, path: str) -> Entry | None:
    """What a directory has of this name; None if nothing."""
    try:
        return _entry(directory, name, path)
    except FileNotFoundError:
        return None


def remove(root: str, path: str) -> None:
    """Remove a file or a link, and the directories above it that are empty then. Nothing if it is gone already."""
    with suppress(FileNotFoundError, NotADirectoryError), parent_of(root, path) as (directory, name):
        os.unlink(name, dir_fd=directory)
    parent = os.path.dirname(path)
    while parent:
        try:
            with parent_of(root, parent) as (directory, name):
                os.rmdir(name, dir_fd=directory)
        except OSError:
            return
        parent = os.path.dirname(parent)


def remove_whole(directory: str) -> None:
    """Remove a directory, in which a sandbox may have taken modes away. Idempotent; OSError for what resists."""
    if not os.path.isdir(directory):
        return
    for _, names, _, descriptor in os.fwalk(directory, follow_symlinks=False):
        for name in names:
            with suppress(OSError):
                os.chmod(name, 0o700, dir_fd=descriptor, follow_symlinks=False)
    shutil.rmtree(directory)


def replace(source: str, root: str, entry: Entry, path: str | None = None) -> None:
    """Put a file or a link of `source` in place below `root`: whoever looks sees the old one or the new one.

    A file that is replaced keeps its mode, but for whether it is executable. `path`: if it is another in `root`.
    """
    with parent_of(root, path or entry.path, make=True) as (directory, name):
        known = look(directory, name, entry.path)
        if known is not None and known.kind == "directory":
            os.rmdir(name, dir_fd=directory)
        temporary = f".cloister-{os.urandom(8).hex()}"
        try:
            if entry.kind == "link":
                os.symlink(entry.target, temporary, dir_fd=directory)
                _give(directory, temporary)
            else:
                with opened(source, entry.path) as reading:
                    write(directory, temporary, reading, executable=entry.executable)
                if known is not None and known.kind == "file":
                    _keep_mode(directory, name, temporary, executable=entry.executable)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise


def _keep_mode(directory: int, name: str, temporary: str, *, executable: bool) -> None:
    mode = stat.S_IMODE(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode) & 0o777
    readers = (mode & 0o444) >> 2
    mode = mode | readers if executable else mode & ~0o111
    os.chmod(temporary, mode, dir_fd=directory)  # a name of our own, just made


def copy(source: str, target: str, listed: Iterable[Entry]) -> list[str]:
    """Copy files, links and directories into an existing directory; returns what could not be, as sentences."""
    failures: list[str] = []
    for entry in listed:
        try:
            _copy(source, target, entry)
        except OSError as error:
            failures.append(f"{entry.path!r} was left out: {error.strerror}")
    return failures


def _copy(source: str, target: str, entry: Entry) -> None:
    with parent_of(target, entry.path, make=True) as (directory, name):
        if entry.kind == "directory":
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=directory)
        elif entry.kind == "link":
            os.symlink(entry.target, name, dir_fd=directory)
        elif entry.kind == "file":
            with opened(source, entry.path) as reading:
                write(directory, name, reading, executable=entry.executable)
            return
        else:
            raise OSError(errno.EINVAL, "it is neither a file, a link nor a directory", entry.path)
        _give(directory, name)


def write(directory: int, name: str, reading: int, *, executable: bool) -> None:
    """Make a file of what can be read, in the kernel where it can: on some file systems the data is shared."""
    with open(os.open(name, _NEW, 0o755 if executable else 0o644, dir_fd=directory), "wb") as file:
        try:
            while os.copy_file_range(reading, file.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            while data := os.read(reading, _CHUNK_BYTES):
                file.write(data)
        _keep_times(reading, file.fileno())
    _give(directory, name)


def _keep_times(source: int, target: int) -> None:
    """Keep the time of the last change: build tools compare."""
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _give(directory: int, name: str) -> None:
    """As root: what is made belongs to whom the directory belongs to."""
    if os.geteuid() == 0:
        owner = os.fstat(directory)
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=directory, follow_symlinks=False)
