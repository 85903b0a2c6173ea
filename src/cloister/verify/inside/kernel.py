"""Privileges, namespaces, processes, system calls, sockets, limits (K)."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import threading
from collections.abc import Callable

from cloister.verify.inside.talk import ARM, CONFIG, LIBC, Probe, RefusedError, closing, probe, unix


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@probe("K-1")
def privileges(found: Probe) -> None:
    fields = status()
    found.control("/proc/self/status can be read", lambda: fields["Seccomp"])
    for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        found.attack(f"{field} is not zero", nonzero, fields[field])
    found.attack("no_new_privs is not set", lambda: differs(fields["NoNewPrivs"], "1"))
    found.attack("no filter of system calls", lambda: differs(fields["Seccomp"], "2"))
    found.attack("become uid 0", lambda: os.setresuid(0, 0, 0))


def nonzero(text: str) -> str:
    if not text.strip("0"):
        raise RefusedError("0")
    return text


def differs(text: str, expected: str) -> str:
    if text == expected:
        raise RefusedError(text)
    return text


def call(number: int, *arguments: object) -> str:
    """A system call by its number. RefusedError if it is refused as such: EPERM or ENOSYS."""
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    code = ctypes.get_errno()
    if result == -1 and code in (errno.EPERM, errno.ENOSYS):
        raise RefusedError(errno.errorcode[code])
    return f"{result}, {errno.errorcode.get(code, 0)}"


def in_child(attempt: Callable[[], object]) -> str:
    """For what would change this process: its end tells whether it was allowed."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RefusedError("refused")
    return "allowed"


def unshare(flags: int) -> None:
    if LIBC.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


@probe("K-2")
def namespaces(found: Probe) -> None:
    found.control("a child process", lambda: in_child(lambda: None))
    kinds = {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "pid": 0x20000000, "uts": 0x4000000}
    for what, flag in kinds.items():
        found.attack(f"a new {what} namespace", in_child, functools.partial(unshare, flag))
    found.attack("mount", mounted)
    found.attack("chroot", lambda: in_child(lambda: os.chroot("/")))
    found.attack("set the host name", lambda: in_child(lambda: socket.sethostname("breached")))

    def joined() -> str:
        with open("/proc/1/ns/net") as file:
            if LIBC.setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return "joined"

    found.attack("setns", joined)


def mounted() -> str:
    if LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    return "mounted"


@probe("K-3")
def processes_outside(found: Probe) -> None:
    mine = os.getpid()
    found.control("this process sees itself", lambda: os.stat(f"/proc/{mine}/cmdline"))
    mark = CONFIG["process_mark"].encode()

    def seen() -> str:
        for pid in pids():
            for file in ("comm", "cmdline", "environ"):
                try:
                    with open(f"/proc/{pid}/{file}", "rb") as stream:
                        if mark in stream.read():
                            return f"process {pid}"
                except OSError:
                    continue
        raise RefusedError("the host's process is not in sight")

    found.attack("see a process of the host", seen)
    found.attack("core dumps", core)


def core() -> str:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_CORE)
    if limit == (0, 0):
        raise RefusedError("limit 0")
    return str(limit)


def pids() -> list[str]:
    return [one for one in os.listdir("/proc") if one.isdigit()]


@probe("K-4")
def rare_calls(found: Probe) -> None:
    table = {
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
        "request_key": (249, 218), "keyctl": (250, 219), "kexec_load": (246, 104), "init_module": (175, 105),
        "io_uring_setup": (425, 425), "open_by_handle_at": (304, 265), "fsopen": (430, 430),
        "open_tree": (428, 428), "mount_setattr": (442, 442), "clone3": (435, 435),
    }  # fmt: skip
    found.control("getpid by its number", lambda: call(172 if ARM else 39))
    for what, numbers in table.items():
        number = numbers[1] if ARM else numbers[0]
        found.attack(what, call, number, 0, 0, 0, 0, 0, 0)
    for family in ("AF_ALG", "AF_VSOCK", "AF_PACKET"):
        kind = socket.SOCK_SEQPACKET if family == "AF_ALG" else socket.SOCK_STREAM
        kind = socket.SOCK_RAW if family == "AF_PACKET" else kind
        found.attack(family, closing, socket.socket, getattr(socket, family), kind)
    found.attack("type into the terminal (TIOCSTI)", terminal_input)


def terminal_input() -> str:
    master, slave = os.openpty()
    ctypes.set_errno(0)
    LIBC.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
    result = LIBC.ioctl(slave, 0x5412, b"x")
    code = ctypes.get_errno()
    os.close(master)
    os.close(slave)
    if result == -1 and code == errno.EPERM:
        raise RefusedError("EPERM")
    return f"{result}, {code}"


@probe("K-5")
def sockets_and_descriptors(found: Probe) -> None:
    def own() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.bind(f"\0verify-{os.getpid()}")
            one.listen(1)
            return unix(f"\0verify-{os.getpid()}")

    found.control("an abstract socket of its own", own)
    found.attack("an abstract socket of the host", lambda: unix("\0" + CONFIG["abstract"]))
    for path in (
        "/run/dbus/system_bus_socket",
        "/var/run/docker.sock",
        "/run/podman/podman.sock",
        "/tmp/.X11-unix/X0",
    ):
        found.attack(path, unix, path)
    found.attack("descriptors that nobody gave it", inherited)


def inherited() -> str:
    extra = []
    for one in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{one}")
        except OSError:
            continue  # that of the listing
        if int(one) > 2 and not target.startswith("/proc/"):
            extra.append(f"{one}: {target}")
    if not extra:
        raise RefusedError("none")
    return ", ".join(extra)


@probe("K-6")
def process_bomb(found: Probe) -> None:
    limit = CONFIG["pids"]
    if not limit:
        live = "it would take processes away from what runs there: run it without --sandbox"
        found.missing = live if CONFIG.get("live") else "the configuration sets no limit of processes"
        return
    threading.stack_size(65536)
    held = threading.Event()
    threads: list[threading.Thread] = []

    def one() -> None:
        thread = threading.Thread(target=held.wait, args=(30,), daemon=True)
        thread.start()
        threads.append(thread)

    def bomb() -> str:
        try:
            while len(threads) < limit + 8:
                one()
        except RuntimeError:  # "can't start new thread"
            raise RefusedError(f"stopped after {len(threads)}") from None
        return f"{len(threads)} threads, and the limit is {limit}"

    found.control("a thread", one)
    found.attack(f"more than {limit} threads", bomb)
    held.set()
    for thread in threads:
        thread.join(5)
