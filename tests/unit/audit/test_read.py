"""The reader: order over rotated files, torn lines, and following while writers rotate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.audit.log import AuditLog, Event
from cloister.audit.read import Entry, Reader, Selection, as_json, latest_sandbox, parse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def reader(path: Path) -> Iterator[Reader]:
    reader = Reader(str(path))
    yield reader
    reader.close()


def writer(path: Path, sandbox: str = "b", *, rotate_at_bytes: int = 10_000_000) -> AuditLog:
    return AuditLog(str(path), sandbox, rotate_at_bytes=rotate_at_bytes)


def numbers(reader: Reader) -> list[int | None]:
    return [entry.event.status for entry in reader.poll()]


def test_an_entry_comes_back_as_it_was_written(path: Path, reader: Reader) -> None:
    event = Event(
        kind="request", host="a.test", port=80, via="proxy", protocol="http", rule="r", reason="why",
        method="GET", path="/x", status=403, sent_bytes=1, received_bytes=2, duration_ms=3.5,
        address="192.0.2.1", text="\x1b",
    )  # fmt: skip
    writer(path).write(event)
    (entry,) = reader.poll()
    assert entry.event == event
    assert entry.sandbox == "b"
    assert as_json(entry) + "\n" == path.read_text()


def test_no_log_reads_as_empty(reader: Reader, path: Path) -> None:
    assert list(reader.poll()) == []
    assert latest_sandbox(str(path)) == ""


def test_rotated_files_are_read_oldest_first(path: Path, reader: Reader) -> None:
    log = writer(path, rotate_at_bytes=200)
    for number in range(10):
        log.write(Event(kind="dns", status=number))
    assert path.with_name("audit.jsonl.2").exists()
    assert numbers(reader) == list(range(10))


def test_following_across_rotations_repeats_and_loses_nothing(path: Path, reader: Reader) -> None:
    """A rotation every two lines and a poll every three: every way in which the two meet, inodes reused."""
    log = writer(path, rotate_at_bytes=200)
    seen: list[int | None] = []
    for number in range(200):
        log.write(Event(kind="dns", status=number))
        if number % 3 == 0:
            seen += numbers(reader)
    assert seen + numbers(reader) == list(range(200))


def test_a_line_that_slips_into_a_file_just_rotated_is_still_followed(path: Path, reader: Reader) -> None:
    late = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.rename(path, f"{path}.1")
    writer(path).write(Event(kind="dns", status=1))
    assert numbers(reader) == [1]
    os.write(late, b'{"time":"t","sandbox":"b","event":"dns","status":2}\n')
    os.close(late)
    assert numbers(reader) == [2]


def test_a_half_written_line_waits_for_its_end(path: Path, reader: Reader) -> None:
    line = b'{"time":"t","sandbox":"b","event":"dns","status":1}\n'
    with path.open("ab", buffering=0) as file:
        for position in range(len(line)):
            assert numbers(reader) == []
            file.write(line[position : position + 1])
    assert numbers(reader) == [1]


@pytest.mark.parametrize(
    "torn",
    [
        b"", b"null", b"[]", b"{", b'{"time":"t"', b'{"time":1,"sandbox":"b","event":"x"}',
        b'{"time":"t","sandbox":"b"}',
        b"\xff\xfe", b'{"time":"t","sandbox":"b","event":"dns","reason":"\xff"}', b"\0" * 100,
    ],
)  # fmt: skip
def test_a_torn_line_costs_only_itself(path: Path, reader: Reader, torn: bytes) -> None:
    whole = b'{"time":"t","sandbox":"b","event":"dns","status":%d}\n'
    path.write_bytes(whole % 1 + torn + b"\n" + whole % 2 + torn)
    assert numbers(reader) == [1, 2]


def test_a_line_appended_to_a_torn_one_is_read() -> None:
    entry = parse(b'{"time":"t","sandbox":"b","event":"conn{"time":"t","sandbox":"c","event":"dns"}\n')
    assert entry == Entry(time="t", sandbox="c", event=Event(kind="dns"))


def test_a_text_that_looks_like_the_start_of_a_line_does_not_confuse(path: Path, reader: Reader) -> None:
    writer(path).write(Event(kind="refuse", reason='{"time":"t","sandbox":"forged","event":"dns"}'))
    (entry,) = reader.poll()
    assert entry.sandbox == "b"


def test_values_of_a_wrong_type_and_unknown_keys_are_left_out() -> None:
    entry = parse(b'{"time":"t","sandbox":"b","event":"dns","port":"x","host":1,"new":true}')
    assert entry == Entry(time="t", sandbox="b", event=Event(kind="dns"))


def test_the_latest_sandbox_is_the_one_that_started_last(path: Path) -> None:
    first, second = writer(path, "one"), writer(path, "two")
    first.write(Event(kind="start"))
    second.write(Event(kind="start"))
    first.write(Event(kind="end"))
    assert latest_sandbox(str(path)) == "two"


def test_the_latest_sandbox_is_found_in_a_rotated_file(path: Path) -> None:
    writer(path, "one").write(Event(kind="start"))
    os.rename(path, f"{path}.1")
    path.write_bytes(b"")
    assert latest_sandbox(str(path)) == "one"


@pytest.mark.parametrize(
    ("selection", "shown"),
    [
        (Selection(), ["1", "2", "3", "4"]),
        (Selection(sandbox="b"), ["2"]),
        (Selection(sandbox="end"), ["4"]),
        (Selection(since="2"), ["2", "3", "4"]),
        (Selection(refused_only=True), ["3"]),
        (Selection(sandbox="a", refused_only=True), []),
    ],
)
def test_a_selection(selection: Selection, shown: list[str]) -> None:
    entries = [
        Entry(time="1", sandbox="a", event=Event(kind="dns")),
        Entry(time="2", sandbox="b", event=Event(kind="connect")),
        Entry(time="3", sandbox="c", event=Event(kind="refuse")),
        Entry(time="4", sandbox="c-end", event=Event(kind="dns")),
    ]
    assert [entry.time for entry in entries if selection.covers(entry)] == shown
