"""Collect what `doctor/checks.py` judges from the live host.

Rule 1: what matters is tried, not read: namespaces are entered, the network is set up and a program runs in
bubblewrap by the code that `cloister run` uses, in a child process that changes nothing on the host.
Rule 2: a fact that cannot be had is None, never an exception: on a broken host doctor must still speak.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

from cloister.doctor import engine_probe
from cloister.doctor.checks import Attempt, HostFacts
from cloister.doctor.version import version
from cloister.engines.client import NAMES
from cloister.network import plumb
from cloister.sandbox import facts
from cloister.system import cgroup, files, linux, proc

ATTEMPT_TIMEOUT_S = 10
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_PACKAGE_MANAGERS = {"apt-get": "apt", "dnf": "dnf", "pacman": "pacman", "apk": "apk", "zypper": "zypper"}


def host_facts(environ: Mapping[str, str], *, untrusted: Sequence[str] = ()) -> HostFacts:
    """Look at this host. Takes some 50 ms, and what its container engines take.

    `untrusted`: directories that a sandbox can write.
    """
    if sys.platform != "linux":
        return HostFacts(system=platform.system(), kernel=platform.release())
    path = environ.get("PATH", proc.PATH)
    bwrap = shutil.which(
        "bwrap", path=":".join((*facts.SYSTEM_DIRECTORIES, path))
    )  # the one that `run` takes
    network = _attempt(_enter_namespaces)
    sandbox = _attempt(lambda: _run_bubblewrap(bwrap)) if bwrap and network[0].succeeded else None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HostFacts(
        kernel=platform.release(),
        architecture=platform.machine(),
        python_version=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        python=os.path.realpath(sys.executable),
        uid=os.geteuid(),
        package_manager=next(
            (name for program, name in _PACKAGE_MANAGERS.items() if shutil.which(program)), ""
        ),
        bwrap=bwrap,
        bwrap_version=_bwrap_version(bwrap) if bwrap else None,
        namespaces=network[0],
        ipv6=network[1] if network[0].succeeded else None,
        bubblewrap=sandbox[0] if sandbox else None,
        max_user_namespaces=_number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts_userns=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        seccomp_filters=_has_seccomp_filters(),
        libseccomp=_loads("libseccomp.so.2"),
        cgroup_controllers=cgroup.delegation(_text("/proc/self/cgroup") or "").controllers,
        id_mapped_mounts=_id_mapped_mounts() if os.geteuid() == 0 else None,
        legacy_tiocsti=_number("/proc/sys/dev/tty/legacy_tiocsti"),
        open_files_hard=None if hard == resource.RLIM_INFINITY else hard,
        ca_bundle=next((name for name in facts.ROOT_BUNDLES if os.access(name, os.R_OK)), None),
        container=container(environ),
        programs=frozenset(name for name in ("git", "tmux") if shutil.which(name, path=path)),
        engines=tuple(engine_probe.look(name, environ, untrusted=untrusted) for name in NAMES),
    )


def container(environ: Mapping[str, str]) -> str:
    """The engine of the container that this runs in, or empty."""
    if os.path.exists("/.dockerenv"):
        return "docker"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    return environ.get(
        "container", ""
    )  # set by systemd-nspawn, LXC and podman (systemd's CONTAINER_INTERFACE)


def _attempt(action: Callable[[], bool]) -> tuple[Attempt, bool]:
    """Run `action` in a child process; its result, or the step (the call) at which it failed, and why."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(ATTEMPT_TIMEOUT_S)
        try:
            report: list[object] = [True, action()]
        except OSError as error:
            step, said = _step(error), error.strerror or str(error)
            report = [False, step, said.removeprefix(f"{step}: ")]
        except BaseException as error:
            report = [False, "start", f"{type(error).__name__}: {error}"]
        os.write(write, json.dumps(report).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        reported = pipe.read()
    os.waitpid(pid, 0)
    if not reported:
        return Attempt(succeeded=False, step="start", error=f"no answer within {ATTEMPT_TIMEOUT_S} s"), False
    result = json.loads(reported)
    if result[0]:
        return Attempt(succeeded=True), bool(result[1])
    return Attempt(succeeded=False, step=result[1], error=result[2]), False


def _step(error: OSError) -> str:
    return str(error.filename or (error.strerror or "").partition(":")[0] or "start")


def _enter_namespaces() -> bool:
    """As the plumber does. Tells whether the namespace has IPv6."""
    plumb.enter_fresh_namespaces(os.geteuid(), os.getegid())
    return socket.AF_INET6 in plumb.configure()


def _run_bubblewrap(bwrap: str) -> bool:
    """A program in bubblewrap, inside the plumber's namespaces. OSError with bubblewrap's own words."""
    _enter_namespaces()
    unshare = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    # Whatever the host's layout: its root, read-only, holds a shell.
    argv = [
        bwrap,
        *unshare,
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--",
        "/bin/sh",
        "-c",
        "exit 0",
    ]
    done = proc.run(argv, timeout_s=ATTEMPT_TIMEOUT_S)
    if done.code != 0:
        words = done.errors.decode(errors="replace").strip().splitlines()
        raise OSError(0, words[-1] if words else f"exit code {done.code}", "bwrap")
    return True


def _bwrap_version(bwrap: str) -> tuple[int, ...]:
    try:
        return version(
            proc.run([bwrap, "--version"], timeout_s=ATTEMPT_TIMEOUT_S).output.decode(errors="replace")
        )
    except OSError:
        return ()


def _has_seccomp_filters() -> bool:
    """prctl(2): a filter at NULL is EFAULT, or EINVAL if the kernel knows no filters."""
    try:
        linux.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


def _id_mapped_mounts() -> bool:
    """Whether mounts can be ID-mapped, as root needs it; tried on the file system of temporary files."""
    with tempfile.TemporaryDirectory(prefix="cloister-doctor-") as directory:
        return _attempt(lambda: _map_owner(directory))[0].succeeded


def _map_owner(directory: str) -> bool:
    tree = linux.open_tree(directory, linux.OPEN_TREE_CLONE)
    ready, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(release, b".")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(release)
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write("0 1000 1")
        linux.mount_setattr_idmap(tree, os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return True


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _text(path: str) -> str | None:
    try:
        content = files.read(path)
    except OSError:
        return None
    return None if content is None else content.decode(errors="replace").strip()


def _number(path: str) -> int | None:
    text = _text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
