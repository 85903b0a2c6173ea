"""Trees as tar streams: the way into and out of a container engine's volumes (`docker cp -`, `exec tar`).

Rule 1: what comes out of a sandbox is unpacked here, not by tarfile: a name with "..", an absolute one, one through a
link that came earlier, or a device is refused; a set-user-ID bit is dropped; of a hard link a copy is made.
Rule 2: names, sizes and the number of entries have limits; a stream that ends early is an error.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import shutil
import tarfile
import time
from collections.abc import Iterable
from typing import BinaryIO

from cloister.errors import UntrustedInputError, WorkspaceError
from cloister.workspaces import tree
from cloister.workspaces.tree import Entry

SIZE_LIMIT_BYTES = 16 << 30
_CHUNK_BYTES = 1 << 20
_REMEMBERED_BYTES = 1 << 16  # more than a record of zeros at the end


def write(
    root: str, out: BinaryIO, listed: Iterable[Entry], *, prefix: str = "", owner: tuple[int, int]
) -> None:
    """Write entries of `root` as a tar stream, names below `prefix`, all belonging to `owner` (uid, gid).

    With a prefix, the directory of that name is its first entry.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        now = int(time.time())  # of what has no time of its own here
        if prefix:
            listed = itertools.chain([Entry(path="", kind="directory")], listed)
        for entry in listed:
            info = tarfile.TarInfo(f"{prefix}/{entry.path}".strip("/"))
            info.uid, info.gid = owner
            info.mtime = now
            if entry.kind == "directory":
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif entry.kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                archive.addfile(info)
            elif entry.kind == "file":
                _add_file(archive, root, entry, info)


def _add_file(archive: tarfile.TarFile, root: str, entry: Entry, info: tarfile.TarInfo) -> None:
    with tree.opened(root, entry.path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        status = os.fstat(descriptor)
        info.size, info.mtime = status.st_size, int(status.st_mtime)
        info.mode = 0o755 if entry.executable else 0o644
        archive.addfile(info, _Exactly(file, info.size))


class _Exactly(io.RawIOBase):
    """A file that may grow or shrink while it is read, and still gives exactly as many bytes as its header said."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._left = file, size

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; zeros where the file has become shorter."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        data += bytes(wanted - len(data))
        self._left -= len(data)
        return data


def extract(untrusted_stream: BinaryIO, root: str, *, strip: str = "") -> list[str]:
    """Unpack into the existing directory `root`; returns what was left out, as sentences.

    `strip`: the name at the top that the stream puts before every other (as `docker cp` does). UntrustedInputError
    for a stream that no tar of a sandbox's files can be.
    """
    left_out: list[str] = []
    size = count = 0
    watched = _Watched(untrusted_stream)
    try:
        with tarfile.open(fileobj=watched, mode="r|") as archive:
            for info in archive:
                name = _relative(info.name, strip)
                original = _original(info, strip)
                count, size = count + 1, size + (_size(root, original) if original else max(info.size, 0))
                if count > tree.ENTRIES_LIMIT or size > SIZE_LIMIT_BYTES:
                    raise UntrustedInputError("the sandbox sends more files than are taken")
                if name:
                    reason = _member(archive, info, root, name, original)
                    if reason:
                        left_out.append(f"{name!r} was left out: {reason}")
            watched.check_end(archive.offset)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UntrustedInputError(f"the sandbox sends no tar stream: {error}") from error
    return left_out


def begins_with_directory(untrusted_stream: BinaryIO) -> bool:
    """Whether the first name of a stream is a directory's; the rest is not read. UntrustedInputError."""
    try:
        with tarfile.open(fileobj=untrusted_stream, mode="r|") as archive:
            first = archive.next()
            return first is not None and first.isdir()
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UntrustedInputError(f"the sandbox sends no tar stream: {error}") from error


class _Watched(io.RawIOBase):
    """A stream whose end is looked at: tarfile takes one that breaks off, or goes on with junk, for a whole one."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream, self._position, self._last = stream, 0, b""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; the last ones are remembered."""
        data = self._stream.read(size)
        self._position += len(data)
        self._last = (self._last + data)[-_REMEMBERED_BYTES:]
        return data

    def check_end(self, offset: int) -> None:
        """From `offset` on, where tarfile has found no header, there must be zeros only."""
        while self.read(_CHUNK_BYTES):
            if self._position - offset > _REMEMBERED_BYTES:
                raise tarfile.ReadError("it does not end")
        end = self._last[offset - self._position :] if self._position > offset else b""
        if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
            raise tarfile.ReadError("it breaks off")


def _relative(untrusted_name: str, strip: str) -> str:
    """A member's path below the root; empty for the root itself."""
    parts = [part for part in untrusted_name.split("/") if part not in ("", ".")]
    if untrusted_name.startswith("/") or ".." in parts or "\0" in untrusted_name:
        raise UntrustedInputError("the sandbox sends a file whose name leads out of the directory")
    if strip and parts[:1] == [strip]:
        parts = parts[1:]
    return "/".join(parts)


def _original(info: tarfile.TarInfo, strip: str) -> str:
    """What a hard link is another name of, below the root; empty for one that leads out of it, and for all else."""
    if not info.islnk():
        return ""
    try:
        return _relative(info.linkname, strip)
    except UntrustedInputError:
        return ""


def _size(root: str, name: str) -> int:
    """The bytes of a file that has been unpacked; 0 where there is none."""
    try:
        with tree.opened(root, name) as descriptor:
            return os.fstat(descriptor).st_size
    except OSError:
        return 0


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo, root: str, name: str, original: str) -> str:
    """Unpack one; why not, if it could not be. `original`: what a hard link is another name of."""
    try:
        with tree.parent_of(root, name, make=True) as (directory, last):
            if info.isdir():
                os.mkdir(last, 0o755, dir_fd=directory)
            elif info.issym():
                os.symlink(info.linkname, last, dir_fd=directory)
            elif info.isreg():
                _file(archive, info, directory, last)
            elif original:
                _again(root, original, directory, last)
            else:
                return "it is neither a file, a link nor a directory"
    except FileExistsError:
        return "" if info.isdir() else "it is there twice"
    except OSError as error:
        if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):  # not of this one alone: a part is not taken for the whole
            raise WorkspaceError(
                f"there is no room for the sandbox's files in {root!r}", resolution="make room, and try again"
            ) from error
        return error.strerror or "it cannot be written"
    return ""


def _file(archive: tarfile.TarFile, info: tarfile.TarInfo, directory: int, name: str) -> None:
    content = archive.extractfile(info)
    if content is None:
        raise tarfile.ReadError("a file without content")
    mode = 0o755 if info.mode & 0o100 else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, flags, mode, dir_fd=directory), "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK_BYTES)
        if file.tell() != info.size:
            raise tarfile.ReadError("the stream ends in a file")
    os.utime(name, (info.mtime, info.mtime), dir_fd=directory, follow_symlinks=False)


def _again(root: str, original: str, directory: int, name: str) -> None:
    """Copy what has been unpacked already: two names of one file are two files here. OSError if it has not been."""
    with tree.opened(root, original) as descriptor, open(descriptor, "rb", closefd=False) as content:
        status = os.fstat(descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        with open(os.open(name, flags, mode, dir_fd=directory), "wb") as file:
            shutil.copyfileobj(content, file, _CHUNK_BYTES)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
