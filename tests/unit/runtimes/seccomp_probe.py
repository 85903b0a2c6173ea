"""Load a compiled filter and print, as JSON, how each probed system call ends. Run by test_seccomp.py."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import socket
import struct
import sys
import termios

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
# name → (x86_64, aarch64)
NUMBERS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "setns": (308, 268), "unshare": (272, 97),
    "clone": (56, 220), "clone3": (435, 435), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "io_uring_setup": (425, 425), "kexec_load": (246, 104), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "fsopen": (430, 430), "open_tree": (428, 428), "openat2": (437, 437),
    "fchmodat2": (452, 452), "personality": (135, 92), "syslog": (103, 116), "socket": (41, 198),
    "ioctl": (16, 29), "fchmod": (91, 52), "fchmodat": (268, 53), "openat": (257, 56), "mknodat": (259, 33),
    "unknown": (9999, 9999), "x32_getpid": (0x40000027, 0x40000027),
}  # fmt: skip
OUTCOME: dict[str, int] = {}


def call(label: str, name: str, *arguments: int | bytes) -> int:
    number = NUMBERS[name][0 if X86 else 1]
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    OUTCOME[label] = ctypes.get_errno() if result == -1 else 0
    return result


def load(path: str) -> None:
    with open(path, "rb") as file:
        code = file.read()
    program = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
    LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if LIBC.prctl(22, 2, ctypes.c_char_p(header), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


def namespaces() -> None:
    for name in ("mount", "umount2", "pivot_root", "setns", "clone3", "bpf", "perf_event_open", "userfaultfd",
                 "keyctl", "add_key", "request_key", "io_uring_setup", "kexec_load", "open_by_handle_at",
                 "name_to_handle_at", "fsopen", "open_tree", "openat2", "fchmodat2", "syslog"):  # fmt: skip
        call(name, name, 0, 0, 0, 0, 0)
    call("unknown call", "unknown")
    call("x32 getpid", "x32_getpid")
    call("unshare user", "unshare", 0x10000000)
    call("unshare mount and fs", "unshare", 0x00020200)
    call("unshare time", "unshare", 0x80)
    call("unshare files", "unshare", 0x400)
    call("clone user", "clone", 0x10000000 | 17, 0, 0, 0, 0)
    call("clone net, high bits", "clone", 1 << 40 | 0x40000000 | 17, 0, 0, 0, 0)
    call("personality", "personality", 0x40000)
    call("personality query", "personality", 0xFFFFFFFF)


def sockets() -> None:
    cases = {
        "tcp": (2, 1, 0), "udp": (2, 2, 17), "tcp6": (10, 1, 6), "unix": (1, 1, 0), "netlink route": (16, 3, 0),
        "nonblocking": (2, 1 | os.O_NONBLOCK | os.O_CLOEXEC, 0), "packet": (17, 3, 0), "alg": (38, 5, 0),
        "vsock": (40, 1, 0), "can": (29, 3, 1), "unspecified": (0, 1, 0), "family, high bits": (1 << 32 | 17, 3, 0),
        "raw": (2, 3, 1), "raw6": (10, 3, 58), "dccp type": (2, 6, 33), "mptcp": (2, 1, 262), "sctp": (2, 1, 132),
        "udplite": (2, 2, 136), "netlink audit": (16, 3, 9),
    }  # fmt: skip
    for label, arguments in cases.items():
        descriptor = call(f"socket {label}", "socket", *arguments)
        if descriptor >= 0:
            os.close(descriptor)


def ioctls() -> None:
    one, other = socket.socketpair()
    for label, request in (
        ("TIOCSTI", 0x5412),
        ("TIOCSTI, high bits", 1 << 32 | 0x5412),
        ("TIOCLINUX", 0x541C),
    ):
        call(f"ioctl {label}", "ioctl", one.fileno(), request, b"x")
    fcntl.ioctl(other, termios.FIONREAD, b"1234")
    OUTCOME["ioctl FIONREAD"] = 0


def files() -> None:
    here = -100 & (1 << 64) - 1
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
    call("fchmod suid", "fchmod", descriptor, 0o4755)
    call("fchmod sgid", "fchmod", descriptor, 0o2755)
    call("fchmod", "fchmod", descriptor, 0o755)
    call("fchmod sticky", "fchmod", descriptor, 0o1755)
    call("fchmodat suid", "fchmodat", here, b"file", 0o4755)
    call("openat create", "openat", here, b"created", os.O_CREAT | os.O_RDWR, 0o600)
    call("openat create suid", "openat", here, b"created2", os.O_CREAT | os.O_RDWR, 0o4700)
    call("openat tmpfile suid", "openat", here, b".", os.O_TMPFILE | os.O_RDWR, 0o4700)
    call("openat with junk mode", "openat", here, b"file", os.O_RDONLY, 0o6777)
    call("mknodat device", "mknodat", here, b"null", 0o020666, 0x103)
    call("mknodat block", "mknodat", here, b"disk", 0o060666, 0x103)
    call("mknodat suid", "mknodat", here, b"suid", 0o104755, 0)
    call("mknodat fifo", "mknodat", here, b"fifo", 0o010600, 0)
    call("mknodat file", "mknodat", here, b"node", 0o100600, 0)


def processes() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    OUTCOME["fork"] = os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    load(sys.argv[1])
    namespaces()
    sockets()
    ioctls()
    files()
    processes()
    print(json.dumps(OUTCOME))
