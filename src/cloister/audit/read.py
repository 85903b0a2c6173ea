"""Read a project's audit log, oldest line first, across rotated files, and go on reading as it grows.

Rule 1: a line counts once it has its newline; what a writer is still writing is left for the next `poll`.
Rule 2: a torn line (a full disk, a crash) costs itself only, also where another line was appended to it.
Rule 3: files are known by descriptor, not by name: rotation neither repeats a line nor loses one, and a new
file that gets the inode of a deleted one is not taken for it.

Waiting between polls is the caller's; nothing here sleeps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cloister.audit.log import KEPT_FILES, Event

_TEXTS = frozenset({"host", "via", "protocol", "rule", "reason", "method", "path", "address", "text"})
_NUMBERS = frozenset({"port", "status", "sent_bytes", "received_bytes", "duration_ms"})
_LINE_START = b'{"time":'
REFUSALS = frozenset({"refuse", "alarm", "quarantine"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: when, which sandbox, what. `time` is RFC 3339 in UTC, so it sorts as text."""

    time: str
    sandbox: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which entries to show. Empty: all. `sandbox` is an id, or what stands after its last hyphen."""

    sandbox: str = ""
    since: str = ""
    refused_only: bool = False

    def covers(self, entry: Entry) -> bool:
        return (
            (not self.sandbox or entry.sandbox == self.sandbox or entry.sandbox.endswith(f"-{self.sandbox}"))
            and entry.time >= self.since
            and (not self.refused_only or entry.event.kind in REFUSALS)
        )


class Reader:
    """A position in the log. `poll` yields what has come since the last call; the first call, everything."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[tuple[int, int], BinaryIO] = {}  # oldest first; by device and inode

    def poll(self) -> Iterator[Entry]:
        deleted = self._update()
        for file in self._files.values():
            for line in _complete_lines(file):
                entry = parse(line)
                if entry is not None:
                    yield entry
        for key in deleted:
            self._files.pop(key).close()

    def close(self) -> None:
        """Close all files. Idempotent."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _update(self) -> list[tuple[int, int]]:
        """Open what is new; return what has been deleted since, to be read to its end once more.

        Newest first: rotation moves a file to a name that is still to be looked at, so none is missed.
        """
        listed: dict[tuple[int, int], BinaryIO] = {}
        for name in names(self._path):
            file = _open(name)
            if file is None:
                continue
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino)
            known = listed.get(key) or self._files.get(key)
            if known is not None:
                file.close()
            listed[key] = known or file
        deleted = {key: file for key, file in self._files.items() if key not in listed}
        self._files = {**deleted, **dict(reversed(listed.items()))}
        return list(deleted)


def names(path: str) -> list[str]:
    """The log's files, newest first."""
    return [path, *(f"{path}.{number}" for number in range(1, KEPT_FILES + 1))]


def latest_sandbox(path: str) -> str:
    """The sandbox that started last; empty if none is in the log. Looks into old files only if it must."""
    for name in names(path):
        file = _open(name)
        if file is None:
            continue
        with file:
            latest = ""
            for line in _complete_lines(file):
                if b'"event":"start"' in line or not latest:
                    entry = parse(line)
                    latest = entry.sandbox if entry is not None else latest
            if latest:
                return latest
    return ""


def parse(line: bytes) -> Entry | None:
    """Read one line. None for a torn one; what follows on the same line is read. Unknown keys are ignored."""
    start = line.rfind(_LINE_START)
    if start < 0:
        return None
    try:
        data = json.loads(line[start:])
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    time, sandbox, kind = data.get("time"), data.get("sandbox"), data.get("event")
    if not (isinstance(time, str) and isinstance(sandbox, str) and isinstance(kind, str)):
        return None
    known = {
        name: data[name]
        for name in Event.__slots__
        if (name in _TEXTS and isinstance(data.get(name), str))
        or (name in _NUMBERS and isinstance(data.get(name), int | float))
    }
    # A newer cloister may write kinds that this one does not know: shown as they are.
    return Entry(time=time, sandbox=sandbox, event=Event(kind=kind, **known))  # type: ignore[arg-type]


def as_json(entry: Entry) -> str:
    """The entry as the writer wrote it: one line of ASCII, without its newline."""
    event = {name: getattr(entry.event, name) for name in Event.__slots__ if name != "kind"}
    content = {"time": entry.time, "sandbox": entry.sandbox, "event": entry.event.kind, **event}
    return json.dumps(
        {key: value for key, value in content.items() if value is not None}, separators=(",", ":")
    )


def _complete_lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _open(path: str) -> BinaryIO | None:
    try:
        return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
    except FileNotFoundError:
        return None
