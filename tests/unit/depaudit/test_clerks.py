"""Who opens a leased file; what lies between two snapshots; the filter that tells of every start."""

from __future__ import annotations

import os
import select
import struct
import subprocess
from pathlib import Path

import pytest

from cloister.depaudit import openers, snapshot
from cloister.runtimes import exec_watch

DEADLINE_MS = 10_000


def opened_by(path: Path, program: list[str]) -> tuple[openers.Opener, ...]:
    """The openers that a lease finds while `program` runs."""
    with openers.Leases({"watched": str(path)}) as leases:
        assert leases.complete
        child = subprocess.Popen(program, stdout=subprocess.DEVNULL)
        try:
            assert select.select([leases.wakeup], [], [], DEADLINE_MS / 1000)[0], "nobody opened it"
            ((name, found),) = leases.broken(os.getpid())
            assert name == "watched"
        finally:
            assert child.wait(DEADLINE_MS / 1000) == 0
        assert [one.pid for one in found] == [child.pid]
    return found


@pytest.mark.parametrize(
    ("program", "writing"),
    [
        (["cat", "{}"], False),
        (["sh", "-c", "echo x >> {}"], True),
        (["python3", "-c", "import os; os.close(os.open('{}', os.O_RDWR))"], True),
        (["python3", "-c", "import os; os.truncate('{}', 0)"], True),
    ],
)
def test_the_opener_of_a_leased_file_is_known(tmp_path: Path, program: list[str], writing: bool) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")
    (opener,) = opened_by(path, [word.replace("{}", str(path)) for word in program])
    assert opener.writing is writing
    assert os.path.basename(opener.program[0]).startswith(program[0])


def test_an_opener_through_a_link_is_known(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "other").symlink_to("secret.txt")
    (opener,) = opened_by(tmp_path / "secret.txt", ["cat", str(tmp_path / "other")])
    assert opener.program == ("cat", str(tmp_path / "other"))


def test_a_lease_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")
    with openers.Leases({"watched": str(path)}) as leases:
        for _ in range(2):
            child = subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL)
            assert select.select([leases.wakeup], [], [], DEADLINE_MS / 1000)[0]
            assert [name for name, _ in leases.broken(os.getpid())] == ["watched"]
            child.wait(DEADLINE_MS / 1000)
            leases.renew()
            assert leases.complete


def test_a_file_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    with openers.Leases({"watched": str(tmp_path / "none")}) as leases, openers.Inotify() as inotify:
        inotify.watch("watched", str(tmp_path / "none"), openers.IN_OPEN)
        assert leases.complete
        assert not list(leases.broken(os.getpid()))
        assert not list(inotify.read())


def test_inotify_names_what_happens(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with openers.Inotify() as inotify:
        inotify.watch("file", str(tmp_path / "file"), openers.IN_OPEN)
        inotify.watch("~/", str(tmp_path), openers.IN_CREATE)
        (tmp_path / "file").read_text()
        (tmp_path / "new").write_text("x")
        assert list(inotify.read()) == [("file", openers.IN_OPEN, ""), ("~/", openers.IN_CREATE, "new")]


def test_a_snapshot_tells_what_was_written_and_passes_by_packages(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    for path in (
        home / ".npm/_cacache",
        work / "node_modules/x",
        work / "venv2/bin",
        work / "venv2/lib",
        home / ".config/systemd/bin",
    ):
        path.mkdir(parents=True)
    (home / ".bashrc").write_text("a")
    (home / "gone").write_text("a")
    (home / "same").write_text("a")
    roots = {"~": str(home), ".": str(work)}
    before = snapshot.take(roots)
    status = (home / ".bashrc").stat()
    (home / ".bashrc").write_text("b")
    os.utime(home / ".bashrc", ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had been
    (home / "gone").unlink()
    for path in (
        home / ".npm/_cacache/x",
        work / "node_modules/x/y",
        work / "venv2/pyvenv.cfg",
        work / "venv2/bin/pip",
    ):
        path.write_text("")
    (work / "new.sh").write_text("")
    (work / "new.sh").chmod(0o755)
    (home / "link").symlink_to("/etc/passwd")
    # What only looks like an environment of Python hides nothing.
    (home / ".config/systemd/lib").mkdir()
    (home / ".config/systemd/pyvenv.cfg").write_text("")
    found = {(one.path, one.how, one.executable) for one in snapshot.difference(before, snapshot.take(roots))}
    assert found == {
        ("~/.bashrc", "changed", False), ("~/gone", "removed", False), ("./new.sh", "new", True),
        ("~/link", "new", False), ("~/.config/systemd/pyvenv.cfg", "new", False),
    }  # fmt: skip


def _run(program: bytes, arch: int, number: int) -> int:
    """The filter's answer, by a small interpreter of the four instructions that it is made of."""
    code = [struct.unpack("=HBBI", program[start : start + 8]) for start in range(0, len(program), 8)]
    position, word = 0, 0
    while True:
        instruction, yes, no, value = code[position]
        position += 1
        if instruction == 0x20:
            word = {0: number, 4: arch}[value]
        elif instruction == 0x15:
            position += yes if word == value else no
        else:
            assert instruction == 0x06
            return int(value)


@pytest.mark.parametrize(
    ("machine", "arch", "execve", "execveat"),
    [("x86_64", 0xC000003E, 59, 322), ("aarch64", 0xC00000B7, 221, 281), ("riscv64", 0xC00000F3, 221, 281)],
)
def test_the_filter_tells_of_starts_and_of_nothing_else(
    machine: str, arch: int, execve: int, execveat: int
) -> None:
    program = exec_watch.program(machine)
    told = {number for number in range(512) if _run(program, arch, number) == 0x7FC00000}
    assert told == {execve, execveat}
    assert {_run(program, 0x40000003, number) for number in range(512)} == {
        0x7FFF0000
    }  # i386: seccomp.py refuses it


def test_an_unknown_machine_is_said() -> None:
    with pytest.raises(OSError, match="'vax' are not known"):
        exec_watch.program("vax")
