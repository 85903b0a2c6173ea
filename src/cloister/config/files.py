"""Read configuration files: regular files only, bounded, valid UTF-8, and nobody else's where it matters.

Rule 1: a file that another user could have written decides nothing (the user's file, the adopted copy).
Rule 2: a directory counts as no file: a live sandbox holds empty ones as mount points where protected files
        do not exist yet. A FIFO or device is refused without waiting for it.
"""

from __future__ import annotations

import errno
import os
import stat

from cloister.config.wording import visible
from cloister.errors import ConfigurationError

LIMIT_BYTES = 1 << 20


def read_bytes(path: str) -> bytes | None:
    """The content of a regular file, None if there is none. OSError for all else."""
    try:
        # O_NONBLOCK: opening a FIFO without a writer must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):  # asked before open(), which refuses one
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        content = file.read(LIMIT_BYTES + 1)
    if len(content) > LIMIT_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {LIMIT_BYTES >> 20} MiB", path)
    return content


def read_configuration(path: str) -> str | None:
    """The text of a configuration file, None if there is none. ConfigurationError for all else."""
    try:
        content = read_bytes(path)
        return None if content is None else content.decode("utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{visible(path)}:1: the file cannot be read: {error.strerror}",
            resolution=f"see: ls -l {visible(path)}",
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{visible(path)}:{line}: the file is not UTF-8 text", resolution="save it as UTF-8"
        ) from None


def read_own_configuration(path: str) -> str | None:
    """As `read_configuration`, for a file that must be the user's or root's, and writable by nobody else."""
    try:
        status = os.stat(path)
    except OSError:
        return read_configuration(path)  # says why, or that there is none
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"{visible(path)}:1: the file belongs to another user (uid {status.st_uid}), who could change it",
            resolution=f"sudo chown {os.geteuid()} {visible(path)}",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and stat.S_ISREG(status.st_mode):
        raise ConfigurationError(
            f"{visible(path)}:1: the file is writable by other users",
            resolution=f"chmod go-w {visible(path)}",
        )
    return read_configuration(path)
