"""The agent has no power over the kernel or other processes (ATTACKS K), from inside a live sandbox."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.world import Cloister, Identity

pytestmark = pytest.mark.sandbox


def python(script: str) -> list[str]:
    return ["/usr/bin/python3", "-c", script]


def test_identity_and_privileges(cloister: Cloister) -> None:
    """K-1."""
    done = cloister.sh(
        "id -u; grep -E '^(CapEff|CapBnd|CapPrm|CapAmb|CapInh|NoNewPrivs|Seccomp):' /proc/self/status"
    )
    lines = done.out.split("\n")
    assert lines[0] != "0"
    values = dict(line.split(":\t") for line in lines[1:] if line)
    assert {values[key] for key in ("CapEff", "CapBnd", "CapPrm", "CapAmb", "CapInh")} == {"0" * 16}
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")


def owners(command_line: bytes) -> set[int]:
    """The host uids of processes with this command line."""
    found = set()
    for pid in os.listdir("/proc"):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == command_line:
                found.add(os.stat(f"/proc/{pid}").st_uid)
        except OSError:
            continue
    return found


def test_host_uid_is_not_root(cloister: Cloister, identity: Identity) -> None:
    """K-1 seen from the host: the kernel's idea of who the agent is, and who owns what it writes."""
    process = cloister.start("run", "--", "/bin/sh", "-c", "touch mine; echo ready; exec cat")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + 20
        while not (uids := owners(b"cat\0")):  # `exec` comes after "ready"
            assert time.monotonic() < end
        assert 0 not in uids
        assert (cloister.project / "mine").stat().st_uid == identity.uid
    finally:
        process.communicate("", timeout=30)


def test_a_stopped_pid_1_does_not_outlive_the_command(cloister: Cloister) -> None:
    """A tracer that ends leaves what it has attached to stopped: nobody reaps the command, no signal ends anything."""
    script = "import ctypes, sys; sys.exit(7 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 8)"
    done = cloister.run(*python(script))
    assert (done.code, "had stopped the sandbox's first process" in done.err) == (137, True), done


@pytest.mark.parametrize(
    "attempt",
    [
        "unshare --user true",
        "unshare --user --map-root-user --net true",
        "unshare --mount true",
        "nsenter --target 1 --net true",
        "mount -t tmpfs none /tmp",
        "mount --bind /usr /tmp",
        "umount /proc",
        "pivot_root /tmp /tmp",
        "chroot / true",
        "mknod disk b 8 0",
        "dmesg",
    ],
)
def test_namespaces_and_mounts(cloister: Cloister, attempt: str) -> None:
    """K-2; the control is that the same shell runs."""
    done = cloister.sh(f"true && echo control; {attempt} 2>/dev/null && echo BREACHED")
    assert done.out == "control\n", done


def test_dangerous_system_calls(cloister: Cloister) -> None:
    """K-4; each by number, so that no library hides it."""
    script = """
import ctypes, errno, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
calls = {"bpf": 321 if x86 else 280, "perf_event_open": 298 if x86 else 241, "userfaultfd": 323 if x86 else 282, "add_key": 248 if x86 else 217,
    "keyctl": 250 if x86 else 219, "kexec_load": 246 if x86 else 104, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "clone3": 435,
    "openat2": 437, "mount_setattr": 442, "landlock_bogus": 9999, "setns": 308 if x86 else 268, "init_module": 175 if x86 else 105,
    "open_by_handle_at": 304 if x86 else 265, "swapon": 167 if x86 else 224, "reboot": 169 if x86 else 142, "acct": 163 if x86 else 89}
for name, number in calls.items():
    ctypes.set_errno(0)
    result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
    code = ctypes.get_errno()
    print(name, result == -1 and code in (errno.EPERM, errno.ENOSYS))
ctypes.set_errno(0)
print("getpid control", libc.syscall(39 if x86 else 172) > 0)
"""
    done = cloister.run(*python(script))
    assert done.code == 0, done
    assert [line for line in done.out.splitlines() if not line.endswith("True")] == []
    assert len(done.out.splitlines()) == 20


def test_sockets_of_other_families(cloister: Cloister) -> None:
    """K-4, NET-3."""
    script = """
import socket
for name in ("AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_BLUETOOTH", "AF_CAN"):
    try:
        socket.socket(getattr(socket, name), socket.SOCK_RAW if name == "AF_PACKET" else socket.SOCK_SEQPACKET if name == "AF_ALG" else socket.SOCK_STREAM)
        print("BREACHED", name)
    except OSError:
        pass
for kind in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    socket.socket(kind)
print("control")
"""
    assert cloister.run(*python(script)).out == "control\n"


def test_terminal_injection_is_refused(cloister: Cloister) -> None:
    """K-4 TIOCSTI, also with high bits set (CVE-2019-10063), on a real terminal."""
    script = """
import fcntl, os, pty
for request in (0x5412, 0x5412 | 1 << 32, 0x541C):
    try:
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        master, slave = pty.openpty()
        result = libc.ioctl(slave, ctypes.c_ulong(request), b"x")
        print("refused" if result == -1 and ctypes.get_errno() == 1 else "BREACHED")
    except OSError as error:
        print("refused")
"""
    assert cloister.run(*python(script)).out == "refused\n" * 3


def test_set_user_id_bits_cannot_be_made(cloister: Cloister) -> None:
    """FS-4: a SUID file in the workspace would be the host user's program."""
    script = """
import os
def attempt(name, call):
    try:
        call(); print(name, "BREACHED")
    except OSError as error:
        print(name, "refused")
open("f", "w").close()
attempt("chmod", lambda: os.chmod("f", 0o4755))
attempt("fchmod", lambda: os.fchmod(os.open("f", os.O_RDWR), 0o2755))
attempt("open", lambda: os.open("g", os.O_CREAT | os.O_RDWR, 0o4755))
attempt("mknod", lambda: os.mknod("h", 0o104755))
os.chmod("f", 0o755); print("control")
"""
    done = cloister.run(*python(script))
    assert done.out.splitlines() == [
        "chmod refused",
        "fchmod refused",
        "open refused",
        "mknod refused",
        "control",
    ], done
    assert all(not path.stat().st_mode & 0o6000 for path in cloister.project.iterdir())


def test_processes_outside_are_invisible(cloister: Cloister) -> None:
    """K-3."""
    done = cloister.sh("ls /proc | grep -c '^[0-9]*$'; kill -9 -1 2>/dev/null; true")
    # sh, ls, grep, bubblewrap's init; `kill -1` may end the shell itself.
    assert int(done.out.splitlines()[0]) <= 6
    script = "import os\ntry:\n    os.kill(%d, 0); print('BREACHED')\nexcept ProcessLookupError:\n    print('refused')"
    assert cloister.run(*python(script % os.getpid())).out.strip() in ("refused",)


def test_no_descriptor_is_inherited(cloister: Cloister) -> None:
    """K-5: a descriptor that the caller's shell left open."""
    secret = cloister.write(cloister.base / "secret", "s3cret")
    with secret.open() as leak:
        os.set_inheritable(leak.fileno(), True)
        done = subprocess.run(
            cloister.argv(["run", "--", "/bin/sh", "-c", "ls -l /proc/self/fd"]),
            cwd=cloister.project, env=cloister.environment(), capture_output=True, text=True, pass_fds=(leak.fileno(),),
            stdin=subprocess.DEVNULL, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done
    numbers = {line.split(" -> ")[0].rsplit(" ", 1)[1] for line in done.stdout.splitlines() if " -> " in line}
    assert numbers == {"0", "1", "2", "3"}, done.stdout  # 3 is the listing itself
    assert "secret" not in done.stdout


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_directory_as_a_standard_stream_is_refused(cloister: Cloister, stream: str) -> None:
    """K-5: openat(0, "../..") would reach the host. Python itself refuses it, in its own words."""
    descriptor = os.open("/etc", os.O_RDONLY)
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | {stream: descriptor}
    try:
        done = subprocess.run(
            cloister.argv(["run", "--", "touch", "ran"]), cwd=cloister.project, env=cloister.environment(),
            stderr=subprocess.PIPE, text=True, check=False, timeout=60, **streams,  # type: ignore[call-overload]
        )  # fmt: skip
    finally:
        os.close(descriptor)
    assert done.returncode == 1
    assert "is a directory" in done.stderr.lower()
    assert not (cloister.project / "ran").exists()


def test_abstract_and_bus_sockets_of_the_host(cloister: Cloister) -> None:
    """K-5: the network namespace has its own abstract names, and no path socket of the host is there."""
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0cloister-test-abstract")
        listener.listen()
        script = """
import os, socket
try:
    socket.socket(socket.AF_UNIX).connect("\\0cloister-test-abstract"); print("BREACHED")
except OSError:
    print("refused")
print([p for p in ("/run/dbus", "/run/docker.sock", "/var/run/docker.sock", "/tmp/.X11-unix") if os.path.exists(p)])
"""
        assert cloister.run(*python(script)).out == "refused\n[]\n"


def test_process_limit(cloister: Cloister) -> None:
    """K-6, FS-7: a fork bomb ends at the limit, and the sandbox survives it."""
    cloister.configure("[sandbox]\npids = 40\n")
    script = """
import os, time
children = 0
try:
    while children < 200:
        pid = os.fork()
        if pid == 0:
            time.sleep(30); os._exit(0)
        children += 1
    print("BREACHED")
except OSError:
    print("limited", children < 60)
"""
    assert cloister.run(*python(script)).out == "limited True\n"


def test_memory_limit(cloister: Cloister) -> None:
    """K-6."""
    cloister.configure('[sandbox]\nmemory = "256m"\n')
    script = (
        "try:\n    b = bytearray(600 << 20); print('BREACHED')\nexcept MemoryError:\n    print('limited')"
    )
    done = cloister.run(*python(script))
    assert done.out == "limited\n" or done.code == 137
    assert cloister.run(*python("b = bytearray(64 << 20); print('control')")).out == "control\n"


def test_core_dumps_are_off(cloister: Cloister) -> None:
    done = cloister.sh("ulimit -c; sh -c 'kill -SEGV $$'; ls core* 2>/dev/null; echo end")
    assert done.out == "0\nend\n"
