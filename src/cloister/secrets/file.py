"""`file:PATH`: a file that only its owner can read.

Rule 1: what is checked is what is read: the open descriptor, never the path again.
"""

from __future__ import annotations

import errno
import os
import stat

from cloister.secrets.source import VALUE_LIMIT_BYTES, Context, Source, SourceError, Value, checked, failed


def check(source: Source) -> None:
    """SourceError unless it is an absolute path, or one of the home's."""
    if not source.argument.startswith(("/", "~/")) or source.argument.endswith("/"):
        raise SourceError(
            "this is no path of a file", 'an absolute path or one of the home, as in "file:~/.secrets/token"'
        )


def fetch(source: Source, context: Context) -> Value:
    """The file's content, without the end of its line."""
    path = located(source.argument, context)
    if context.is_untrusted(path):
        reason = "the file lies where the sandbox can write"
        raise failed(
            source, context, reason, resolution="keep it outside of the workspace, as in ~/.secrets/"
        )
    try:
        # O_NONBLOCK: a FIFO must not hang us. O_NOFOLLOW: who may place a link there chooses what we read.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise failed(source, context, _why_not_open(error)) from None
    try:
        reason, resolution = _refusal(os.fstat(descriptor), path)
        if reason:
            raise failed(source, context, reason, resolution=resolution)
        with open(descriptor, "rb", closefd=False) as file:
            return Value(secret=checked(file.read(VALUE_LIMIT_BYTES + 1), source, context))
    finally:
        os.close(descriptor)


def located(path: str, context: Context) -> str:
    """`path` with the user's home for "~/"."""
    if not path.startswith("~/"):
        return path
    return os.path.join(context.environ.get("HOME") or os.path.expanduser("~"), path[2:])


def _why_not_open(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "there is no such file"
        case errno.ELOOP:
            return "it is a symbolic link; expected the file itself"
        case errno.ENXIO:  # a socket
            return "it is not a regular file"
        case _:
            return error.strerror or "it cannot be read"


def _refusal(status: os.stat_result, path: str) -> tuple[str, str]:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file", ""
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to another user (uid {status.st_uid})", f"sudo chown {os.geteuid()} {path!r}"
    if status.st_mode & 0o077:
        return f"others may read or write it (mode {status.st_mode & 0o777:03o})", f"chmod 600 {path!r}"
    return "", ""
