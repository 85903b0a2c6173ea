"""The writer: what a line holds, who may read it, rotation among several writers, and a disk that is full."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.audit.log import AuditLog, Event, line, timestamp

NOON = 1767355445.678


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    log = AuditLog(str(tmp_path / "audit" / "audit.jsonl"), "box-1", clock=lambda: NOON)
    yield log
    log.close()


def test_a_line_holds_time_sandbox_event_and_only_the_fields_that_are_set(log: AuditLog) -> None:
    log.write(Event(kind="connect", host="pypi.org", port=443, via="transparent", sent_bytes=0))
    assert Path(log.path).read_text() == (
        '{"time":"2026-01-02T12:04:05.678Z","sandbox":"box-1","event":"connect","host":"pypi.org","port":443,'
        '"via":"transparent","sent_bytes":0}\n'
    )


def test_only_the_owner_may_read_it(log: AuditLog) -> None:
    previous = os.umask(0)
    try:
        log.write(Event(kind="start"))
    finally:
        os.umask(previous)
    assert stat.S_IMODE(os.stat(log.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(log.path)).st_mode) == 0o700


@pytest.mark.parametrize("path", ["/simple/?token=hunter2", "/simple/#hunter2", "/simple/#a?hunter2"])
def test_a_query_or_fragment_is_never_written(path: str) -> None:
    text = line(Event(kind="request", path=path), sandbox_id="b", seconds=0)
    assert json.loads(text)["path"] == "/simple/"
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "host", ["user:hunter2@a.test", "a.test?hunter2", "a.test/hunter2", "a.test#hunter2"]
)
def test_only_the_name_of_an_unparsed_host_is_written(host: str) -> None:
    text = line(Event(kind="refuse", host=host), sandbox_id="b", seconds=0)
    assert json.loads(text)["host"] == "a.test"


@pytest.mark.parametrize(
    "nasty", ["a\nb", "\x1b[2J", "\x7f", "\x9b31m", "\u202eevil", "\ud800", "\u2028", "\0"]
)
def test_every_character_beyond_printable_ascii_is_escaped(nasty: str) -> None:
    text = line(Event(kind="refuse", reason=nasty, host=nasty), sandbox_id=nasty, seconds=0)
    assert text.endswith("}\n")
    assert all(" " <= character <= "~" for character in text[:-1])
    assert json.loads(text)["reason"] == nasty


def test_a_text_is_cut_at_512_characters() -> None:
    written = json.loads(line(Event(kind="refuse", reason="x" * 10_000), sandbox_id="b", seconds=0))
    assert written["reason"] == "x" * 511 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOON, "2026-01-02T12:04:05.678Z"),
        (1.9999, "1970-01-01T00:00:01.999Z"),
    ],
)
def test_time_is_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


def test_it_rotates_and_keeps_five(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path), "b", rotate_at_bytes=200)
    for number in range(100):
        log.write(Event(kind="dns", status=number))
    log.close()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["audit.jsonl", *(f"audit.jsonl.{n}" for n in range(1, 6)), "audit.jsonl.lock"]
    files = [tmp_path / f"audit.jsonl.{number}" for number in range(5, 0, -1)] + [path]
    numbers = [entry["status"] for file in files for entry in lines(file)]
    assert numbers == list(range(100 - len(numbers), 100))
    assert all(file.stat().st_size <= 200 for file in files)


def _write_many(path: str, sandbox: str, count: int, rotate_at_bytes: int) -> None:
    log = AuditLog(path, sandbox, rotate_at_bytes=rotate_at_bytes)
    for number in range(count):
        log.write(Event(kind="dns", status=number))
    sys.exit(0 if log.failure is None else 1)


def test_several_processes_lose_and_tear_nothing_across_rotations(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    each, writers = 400, 4
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_write_many, args=(str(path), f"w{n}", each, 40_000)) for n in range(writers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * writers
    seen = {
        (entry["sandbox"], entry["status"])
        for file in tmp_path.glob("*.jsonl*")
        if "lock" not in file.name
        for entry in lines(file)
    }
    assert (tmp_path / "audit.jsonl.1").exists()  # how often depends on who gets the lock when
    assert seen == {(f"w{n}", number) for n in range(writers) for number in range(each)}


def test_it_goes_on_in_the_new_file_when_another_process_has_rotated(log: AuditLog) -> None:
    log.write(Event(kind="start"))
    os.rename(log.path, log.path + ".1")
    log.write(Event(kind="end"))
    assert [entry["event"] for entry in lines(Path(log.path))] == ["end"]


def test_a_symbolic_link_is_not_followed(log: AuditLog, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    os.makedirs(os.path.dirname(log.path))
    os.symlink(target, log.path)
    log.write(Event(kind="start"))
    assert log.failure is not None
    assert log.failure.errno == errno.ELOOP
    assert target.read_text() == ""


def test_an_error_is_remembered_reported_once_and_cleared_by_the_next_success(tmp_path: Path) -> None:
    heard: list[OSError] = []
    obstacle = tmp_path / "audit"
    obstacle.write_text("a file where the directory should be")
    log = AuditLog(str(obstacle / "audit.jsonl"), "b", on_failure=heard.append)
    log.write(Event(kind="start"))
    log.write(Event(kind="dns"))
    assert [error.errno for error in heard] == [errno.ENOTDIR]
    assert log.failure is not None
    obstacle.unlink()
    log.write(Event(kind="dns"))
    failure_afterwards: OSError | None = log.failure
    log.close()
    assert failure_afterwards is None
    assert [entry["event"] for entry in lines(obstacle / "audit.jsonl")] == ["dns"]


def test_a_callback_that_cannot_report_does_not_reach_the_caller(tmp_path: Path) -> None:
    def broken(error: OSError) -> None:
        raise BrokenPipeError from error

    (tmp_path / "audit").write_text("")
    log = AuditLog(str(tmp_path / "audit" / "audit.jsonl"), "b", on_failure=broken)
    log.write(Event(kind="start"))
    assert log.failure is not None


def test_a_full_disk_tears_one_line_and_the_next_starts_afresh(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, in a child, stands for the full disk: a short write first, then an error."""
    program = f"""
import resource, signal
from cloister.audit.log import AuditLog, Event
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog({str(tmp_path / "audit.jsonl")!r}, "b")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for number in range(3):
    log.write(Event(kind="dns", status=number))
    print(log.failure.errno if log.failure else 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
log.write(Event(kind="dns", status=9))
print(log.failure)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout.split() == ["0", str(errno.ENOSPC), str(errno.EFBIG), "None"]
    first, torn, last = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(first)["status"] == 0
    with pytest.raises(ValueError):
        json.loads(torn)
    assert json.loads(last)["status"] == 9


def test_importing_it_loads_nothing_slow() -> None:
    program = "import sys; import cloister.audit.log; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "cloister.audit.log" in loaded
    assert not loaded & {"typing", "pathlib", "logging", "datetime", "asyncio", "rich", "pydantic"}
