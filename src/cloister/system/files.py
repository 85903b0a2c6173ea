"""Small files of ours: written whole or not at all, private, locked where two processes meet."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from cloister.lean import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LIMIT_BYTES = 16 << 20


def read(path: str) -> bytes | None:
    """The content of a regular file; None if there is none. OSError for all else.

    A directory counts as none: a live sandbox holds empty ones where protected files do not exist yet.
    """
    try:
        # O_NONBLOCK: an agent may leave a FIFO where a file is looked for, and opening one would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            return None
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    with open(descriptor, "rb") as file:
        return file.read(_LIMIT_BYTES)


def read_text(path: str) -> str | None:
    """As `read`, decoded as UTF-8 with surrogate escapes: equal texts are equal bytes."""
    content = read(path)
    return None if content is None else content.decode("utf-8", "surrogateescape")


def write_atomic(path: str, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`: a reader sees the old or the new file, never a part."""
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(temporary, path)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError) and error.filename is None:  # write(2) and close(2) know no name
            error.filename = path
        raise


def abandoned(name: str) -> bool:
    """Whether a directory entry is a temporary file of `write_atomic` whose writer was killed over it."""
    parts = name.rsplit(".", 3)
    if len(parts) != 4 or parts[3] != "tmp" or not parts[1].isdecimal():
        return False
    return not os.path.exists(f"/proc/{parts[1]}")


def remove(path: str) -> None:
    """Unlink `path`; nothing if it is gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, read-only directories too, following no link. Idempotent."""
    import shutil  # seldom, and never on a start

    def allow(function: Callable[..., object], name: str, _: object) -> None:
        if not os.path.lexists(name):
            return
        os.chmod(os.path.dirname(name), 0o700)  # a module cache may be read-only (go mod)
        if not os.path.islink(name) and os.path.isdir(name):
            os.chmod(name, 0o700)
            shutil.rmtree(name, onerror=allow)
        else:
            function(name)

    if os.path.lexists(path):
        shutil.rmtree(path, onerror=allow)


def make_private_directory(path: str) -> None:
    """Create `path` and what is missing above it, each mode 0700 whatever the umask (os.makedirs: only the last)."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        make_private_directory(os.path.dirname(path))
        with suppress(FileExistsError):  # another command makes it at the same time
            os.mkdir(path, 0o700)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` (flock(2): it goes with the process, however that ends)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
