"""Tell a process outside of every program that a sandbox starts (seccomp(2), SECCOMP_RET_USER_NOTIF; ADR 0080).

The plumber installs a filter on execve and execveat before it becomes bubblewrap, so nothing of ours need run inside,
and sends the listening descriptor to whoever watches. Each start waits until that one has answered.

Rule 1: for information only. The memory that holds a path may change between our look and the kernel's, so every call
        continues as it was made; what is forbidden is forbidden by other means.
Rule 2: nobody who listens, nothing starts: when the listener is closed, execve fails with ENOSYS.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from cloister.system import linux
from cloister.values import dataclass

# AUDIT_ARCH_* (linux/audit.h), and the numbers of execve and execveat.
_MACHINES = {
    "x86_64": (0xC000003E, 59, 322),
    "aarch64": (0xC00000B7, 221, 281),
    "riscv64": (0xC00000F3, 221, 281),
}
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4  # in struct seccomp_data

_NOTIFICATION = struct.Struct("=QII iIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*
_CONTINUE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A call that waits for its answer. The last three are addresses in the memory of thread `tid` (ours to count)."""

    cookie: int
    tid: int
    directory: int | None  # execveat's descriptor
    path: int
    arguments: int
    environment: int


def program(machine: str) -> bytes:
    """The filter. OSError if this kind of machine is not known."""
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"the system calls of {machine!r} are not known")
    arch, execve, execveat = _MACHINES[machine]
    # code, jump if true, jump if false, value
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, _ARCH_OFFSET),
            (_JUMP_IF_EQUAL, 0, 3, arch),
            (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
            (_JUMP_IF_EQUAL, 2, 0, execve),
            (_JUMP_IF_EQUAL, 1, 0, execveat),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _NOTIFY),
        )
    )


def install(observer: int) -> None:
    """In the plumber, which has CAP_SYS_ADMIN in its namespace: from now on `observer` is told, over a Unix socket."""
    code = program(os.uname().machine)
    try:
        listener = linux.seccomp_listener(code, linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        listener = linux.seccomp_listener(code, 0)
    with socket.socket(fileno=os.dup(observer)) as channel:
        socket.send_fds(channel, [b"listener"], [listener])
    os.close(listener)


def receive(listener: int) -> Start | None:
    """The next call that waits; None if it has been given up meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):  # its process was killed
            return None
        raise
    cookie, tid, _, number, _, _, *words = _NOTIFICATION.unpack(buffer)
    if number == _MACHINES[os.uname().machine][2]:
        directory, words = words[0], words[1:]
    else:
        directory = None
    path, arguments, environment = words[:3]
    return Start(
        cookie=cookie, tid=tid, directory=directory, path=path, arguments=arguments, environment=environment
    )


def let_go(listener: int, start: Start) -> None:
    """Let the call go on as it was made."""
    try:
        fcntl.ioctl(listener, _SEND, bytearray(_RESPONSE.pack(start.cookie, 0, 0, _CONTINUE)))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
