from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.runtimes import seccomp
from cloister.runtimes import seccomp_table as table

# Runs in a child under the filter alone: each call's errno by a name, 0 if it succeeded.
PROBE = Path(__file__).with_name("seccomp_probe.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    directory = tmp_path_factory.mktemp("probe")
    path = seccomp.filter_file(str(directory / "state"))
    done = subprocess.run(
        [sys.executable, str(PROBE), path], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


ENOSYS, EPERM = errno.ENOSYS, errno.EPERM
NO_FAMILY, NO_PROTOCOL = errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT
REFUSED = {
    "mount": EPERM, "umount2": EPERM, "pivot_root": EPERM, "setns": EPERM, "fsopen": EPERM, "open_tree": EPERM,
    "unshare user": EPERM, "unshare mount and fs": EPERM, "unshare time": EPERM, "clone user": EPERM,
    "clone net, high bits": EPERM, "clone3": ENOSYS, "bpf": EPERM, "perf_event_open": EPERM,
    "userfaultfd": EPERM, "keyctl": EPERM, "add_key": EPERM, "request_key": EPERM, "io_uring_setup": ENOSYS,
    "kexec_load": EPERM, "open_by_handle_at": EPERM, "name_to_handle_at": EPERM, "openat2": ENOSYS,
    "fchmodat2": ENOSYS, "personality": ENOSYS, "unknown call": ENOSYS, "syslog": EPERM,
    "socket packet": NO_FAMILY, "socket alg": NO_FAMILY, "socket vsock": NO_FAMILY, "socket can": NO_FAMILY,
    "socket unspecified": NO_FAMILY, "socket family, high bits": NO_FAMILY, "socket raw": EPERM,
    "socket raw6": EPERM, "socket dccp type": EPERM, "socket mptcp": NO_PROTOCOL, "socket sctp": NO_PROTOCOL,
    "socket udplite": NO_PROTOCOL, "socket netlink audit": NO_PROTOCOL, "ioctl TIOCSTI": EPERM,
    "ioctl TIOCSTI, high bits": EPERM, "ioctl TIOCLINUX": EPERM, "fchmod suid": EPERM, "fchmod sgid": EPERM,
    "fchmodat suid": EPERM, "openat create suid": EPERM, "openat tmpfile suid": EPERM, "mknodat device": EPERM,
    "mknodat block": EPERM, "mknodat suid": EPERM,
}  # fmt: skip
ALLOWED = (
    "unshare files", "personality query", "socket tcp", "socket udp", "socket tcp6", "socket unix",
    "socket nonblocking", "socket netlink route", "fchmod", "fchmod sticky", "openat create", "openat with junk mode",
    "mknodat fifo", "mknodat file", "ioctl FIONREAD", "fork",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, outcome: dict[str, int]) -> None:
    assert outcome[name] == REFUSED[name]


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, outcome: dict[str, int]) -> None:
    assert outcome[name] == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="i386 and x32 are x86's")
def test_foreign_architecture(outcome: dict[str, int]) -> None:
    assert outcome["x32 getpid"] == ENOSYS


def test_an_unlisted_call_is_denied_by_default() -> None:
    assert not set(table.ALLOWED) & (set(table.FORBIDDEN) | set(table.ABSENT))
    for names in (table.ALLOWED, table.FORBIDDEN):
        assert len(names) == len(set(names))
    conditional = {"clone", "unshare", "socket", "ioctl", "personality", "open", "openat", "creat", "chmod"}
    assert not conditional & set(table.ALLOWED), "an unconditional rule would swallow the conditions"


def test_the_file_is_compiled_once_and_a_damaged_one_again(tmp_path: Path) -> None:
    path = seccomp.filter_file(str(tmp_path))
    whole = Path(path).read_bytes()
    assert len(whole) % seccomp.INSTRUCTION_BYTES == 0
    written = os.stat(path).st_ino
    assert seccomp.filter_file(str(tmp_path)) == path
    assert os.stat(path).st_ino == written
    for damaged in (b"", whole[:-4], whole[:-8], b"\0" * len(whole)):
        Path(path).write_bytes(damaged)
        assert Path(seccomp.filter_file(str(tmp_path))).read_bytes() == whole


def test_files_of_other_versions_are_removed(tmp_path: Path) -> None:
    (tmp_path / "seccomp-x86_64-00000000-00000000.bpf").write_bytes(b"")
    (tmp_path / "other").touch()
    path = seccomp.compile_file(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(["other", os.path.basename(path)])
