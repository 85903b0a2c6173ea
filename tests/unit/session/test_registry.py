from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from cloister.sandbox import registry


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def record(**changes: object) -> registry.Record:
    me = registry.identify(os.getpid())
    assert me is not None
    fields: dict[str, object] = {"sandbox_id": "box", "workspace": "/w", "session": me} | changes
    return registry.Record(**fields)  # type: ignore[arg-type]  # named in each test


def test_round_trip(tmp_path: Path) -> None:
    child = start()
    try:
        process = registry.identify(child.pid)
        assert process is not None
        kept = registry.Kept(str(tmp_path), record(ports=((8080, 3000),)))
        kept.update(others=(process,), nested=("/w/.git",), launched=True, cgroup="/c")
        assert kept.record.ports == ((8080, 3000),)
        assert list(registry.records(str(tmp_path))) == [kept.record]
        assert registry.any_record(str(tmp_path))
        assert registry.exists(str(tmp_path), "box")
        assert (tmp_path / "box.json").stat().st_mode & 0o777 == 0o600
    finally:
        child.kill()
        child.wait()
    registry.remove(str(tmp_path), "box")
    registry.remove(str(tmp_path), "box")
    assert not registry.any_record(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"sandbox": 1}', "null", '{"sandbox":"x","workspace":"/","session":[1]}']
)
def test_a_damaged_record_is_dropped(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    assert list(registry.records(str(tmp_path))) == []
    assert not (tmp_path / "bad.json").exists()


def test_a_missing_directory_holds_nothing(tmp_path: Path) -> None:
    assert list(registry.records(str(tmp_path / "none"))) == []


def test_one_that_is_reaped_while_it_is_looked_at_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's answer is ESRCH where the file was opened in time."""

    def reaped(path: str) -> bytes:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path)

    monkeypatch.setattr("cloister.system.files.read", reaped)
    assert registry.identify(os.getpid()) is None


def test_a_pid_alone_does_not_identify() -> None:
    child = start()
    process = registry.identify(child.pid)
    assert process is not None
    other = registry.Process(pid=process.pid, started=process.started + 1)
    assert registry.alive(process)
    assert not registry.alive(other)
    registry.kill(other)  # a process that got the pid of a dead one
    assert child.poll() is None
    registry.kill(process)
    assert child.wait() == -signal.SIGKILL
    assert not registry.alive(process)
    registry.kill(process)


def test_a_zombie_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert registry.identify(child) is None
    os.waitpid(child, 0)


def test_odd_command_names(tmp_path: Path) -> None:
    """proc(5): the name in parentheses may hold anything, ") R 1 (" included."""
    program = tmp_path / "a) R 1 ("
    program.write_text("#!/bin/sh\nsleep 60\n")
    program.chmod(0o755)
    child = subprocess.Popen([str(program)])
    try:
        found = registry.identify(child.pid)
        assert found is not None
        assert found.started > 1
    finally:
        child.kill()
        child.wait()
