"""Read what the walk of a workspace (scan.py) must know of a file or directory that the sandbox may have written.

Rule 1: bounded, and nothing hangs: a FIFO, a device and an endless file are read as what they hold at once.
Rule 2: what cannot be read holds nothing; what that means is the caller's to say.
"""

from __future__ import annotations

import errno
import os
import stat

from cloister.sandbox import gitconfig

START_BYTES = 1 << 16
_LIMIT_BYTES = 1 << 22
# Of connect(2): nobody listens there, which a start of the sandbox's own server must be able to replace.
_UNANSWERED = frozenset({errno.ECONNREFUSED, errno.ENOENT})


def read(path: str, limit_bytes: int = _LIMIT_BYTES) -> bytes:
    """Its first bytes; empty if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(limit_bytes) or b""
    except OSError:
        return b""


def start(path: str) -> bytes:
    """As much as tells what kind of file it is."""
    return read(path, START_BYTES)


def is_absent_or_empty(path: str) -> bool:
    """Whether there is no such name, or an empty directory."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError:
        return False


def is_answered_socket(path: str) -> bool:
    """Whether this is a Unix socket on which some process listens: a namespace of networks does not close it (unix(7)).

    One that only its owner's end has left behind is none. Nothing is sent, and nothing waits.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        return any(_answers(f"/proc/self/fd/{descriptor}", kind) for kind in _kinds())
    finally:
        os.close(descriptor)


def _kinds() -> tuple[int, ...]:
    import socket  # seldom is there one

    return socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET


def _answers(path: str, kind: int) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        code = probe.connect_ex(path)
    return code not in _UNANSWERED and code != errno.EPROTOTYPE


def global_hooks(home: str) -> list[str]:
    """Where the user's git looks for hooks in every repository: the relative ones."""
    return [
        entry.value
        for path in (f"{home}/.gitconfig", f"{home}/.config/git/config")
        for entry in gitconfig.entries(read(path).decode(errors="replace"))
        if (entry.section, entry.key) == ("core", "hookspath") and not entry.value.startswith("/")
    ]
