"""The kernel, by its C names. Every failure is an `OSError` that names the call and the path.

Rule 1: no policy here; a function is one system call.
Rule 2: ctypes only. `os.unshare` and `os.setns` came with Python 3.12; the mount calls of Linux 5.2 (open_tree,
        move_mount) and 5.12 (mount_setattr) have no wrapper in glibc 2.35 and older.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns a namespace

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2

IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
AT_SYMLINK_NOFOLLOW = 0x100
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_IDMAP = 0x00100000

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_SOCK_FILTER_BYTES = 8

# Since Linux 5.0 new calls carry the same number on every architecture.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442

# seccomp(2) is older: its number differs.
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19: a signal does not start the call anew

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2); `kind` is a CLONE_NEW* flag."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument."""
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero), "prctl")


def drop_capabilities() -> None:
    """Empty all five sets of capabilities(7), the bounding set included, for good."""
    number = 0
    while True:
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL:  # there are no more
                break
            raise
        number += 1
    clear_capabilities()


def clear_capabilities() -> None:
    """Empty the sets of capabilities(7) but the bounding set, which only a holder of CAP_SETPCAP can change."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def watch_directories(directories: Sequence[str]) -> int:
    """A descriptor that becomes readable when a name comes into one, or goes out of it (inotify(7)). OSError."""
    descriptor: int = _libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC))
    _check(descriptor, "inotify_init1")
    flags = ctypes.c_uint32(IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE)
    try:
        for directory in directories:
            added = _libc.inotify_add_watch(ctypes.c_int(descriptor), os.fsencode(directory), flags)
            _check(added, "inotify_add_watch", directory)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def set_seccomp_filter(program: bytes) -> None:
    """prctl(2), PR_SET_SECCOMP: install `program`, an array of struct sock_filter. Needs no_new_privs."""
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length in instructions, padding, a pointer.
    fprog = struct.pack("@HP", len(program) // _SOCK_FILTER_BYTES, ctypes.addressof(code))
    result = _libc.prctl(
        ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(SECCOMP_MODE_FILTER), fprog, ctypes.c_ulong(0)
    )
    _check(result, "prctl(PR_SET_SECCOMP)")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    encoded = kind.encode() if kind is not None else None
    result = _libc.mount(
        source.encode(), os.fsencode(target), encoded, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, "mount", target)


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), "umount2", target)


def open_tree(path: str, flags: int) -> int:
    """open_tree(2): a descriptor for `path`; with OPEN_TREE_CLONE a detached bind mount of it."""
    result = _syscall(
        _SYS_OPEN_TREE, ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags | OPEN_TREE_CLOEXEC)
    )
    return _check(result, "open_tree", path)


def mount_setattr_idmap(tree: int, user_namespace: int) -> None:
    """mount_setattr(2): map the owners of the detached mount `tree` through a user namespace's maps.

    EINVAL: the file system cannot be mapped (overlayfs, NFS …).
    """
    _mount_setattr(tree, struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, user_namespace))


def mount_setattr_read_only(tree: int) -> None:
    """mount_setattr(2): make the detached mount `tree` read-only."""
    _mount_setattr(tree, struct.pack("=QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0))


def _mount_setattr(tree: int, attributes: bytes) -> None:
    result = _syscall(
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(tree),
        b"",
        ctypes.c_uint(AT_EMPTY_PATH),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, "mount_setattr")


def move_mount(tree: int, target: str) -> None:
    """move_mount(2): attach the detached mount `tree` at `target`."""
    result = _syscall(
        _SYS_MOVE_MOUNT,
        ctypes.c_int(tree),
        b"",
        ctypes.c_int(AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )
    _check(result, "move_mount", target)


def seccomp_listener(program: bytes, flags: int) -> int:
    """seccomp(2): install a filter (an array of struct sock_filter) for good; the descriptor of its notifications."""
    number = _SYS_SECCOMP.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "seccomp: the number of the call is not known for this machine")
    result = _syscall(
        number,
        ctypes.c_uint(SECCOMP_SET_MODE_FILTER),
        ctypes.c_uint(SECCOMP_FILTER_FLAG_NEW_LISTENER | flags),
        ctypes.byref(_Program(len(program) // 8, program)),
    )
    return _check(result, "seccomp")


def inotify_init() -> int:
    """inotify_init1(2), not blocking."""
    return _check(_libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)), "inotify_init1")


def inotify_add_watch(descriptor: int, path: str, mask: int) -> int:
    """inotify_add_watch(2)."""
    result = _libc.inotify_add_watch(ctypes.c_int(descriptor), os.fsencode(path), ctypes.c_uint32(mask))
    return _check(result, "inotify_add_watch", path)


def _syscall(number: int, *arguments: object) -> int:
    _libc.syscall.restype = ctypes.c_long
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def _check(result: int, call: str, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)
    return result
