"""Append events to a project's audit log: one JSON object a line.

Rule 1: `write` never raises and never waits for another process. The session and the gateway both append to
the same file; each line is a single O_APPEND write, and only rotation takes a lock.
Rule 2: what cannot be written is not forgotten: `failure` holds the last error until a write succeeds again,
and the gateway lets nothing new out while it is set (ADR 0040). `on_failure` hears of it once each time.
Rule 3: nothing secret by construction: a path ends before its query, a host before anything that is not its
authority, a text is cut, and every character outside printable ASCII is written as a JSON escape.
Rule 4: in the gateway's start-up path: imports nothing that is slow to load.

Not thread-safe: one `AuditLog` for one thread. It does not read; see `audit/read.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from cloister.lean import json, suppress
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Kind = Literal[
        "start",
        "end",
        "dns",
        "connect",
        "request",
        "publish",
        "refuse",
        "alarm",
        "confirm",
        "sign",
        "quarantine",
    ]
    Via = Literal["transparent", "proxy", "dns"]
    Protocol = Literal["tls", "https", "http", "tcp", "dns"]

ROTATE_AT_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5  # audit.jsonl.1 (newest) … audit.jsonl.5
TEXT_LIMIT_CHARACTERS = 512

_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened. `kind` is written as "event"; what is None is left out of the line.

    `rule` and `reason` come from a decision; `text` is for `start`, `end` and `alarm`. None of them may quote
    the arguments of the command in the sandbox or the body of a request: those hold secrets.
    """

    kind: Kind
    host: str | None = None
    port: int | None = None
    via: Via | None = None
    protocol: Protocol | None = None
    rule: str | None = None
    reason: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    duration_ms: int | float | None = None
    address: str | None = None
    text: str | None = None


class AuditLog:
    """The writing end of one project's log, for one sandbox. Opens its file at the first write."""

    def __init__(
        self,
        path: str,
        sandbox_id: str,
        *,
        clock: Callable[[], float] = time.time,
        on_failure: Callable[[OSError], None] | None = None,
        rotate_at_bytes: int = ROTATE_AT_BYTES,
    ) -> None:
        self.path = path
        self.failure: OSError | None = None
        self._sandbox_id = sandbox_id
        self._clock = clock
        self._on_failure = on_failure
        self._rotate_at_bytes = rotate_at_bytes
        self._descriptor = -1
        self._inode = (0, 0)
        self._torn = False  # the last write stopped in the middle of a line

    def write(self, event: Event) -> None:
        """Append one line. An error is kept in `failure`, never raised."""
        text = line(event, sandbox_id=self._sandbox_id, seconds=self._clock())
        try:
            self._append(text.encode("ascii"))
        except OSError as error:
            self._remember(error)
        else:
            self.failure = None

    def close(self) -> None:
        """Close the file. Idempotent; a later `write` opens it again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _append(self, data: bytes) -> None:
        size_bytes = self._follow()
        if size_bytes and size_bytes + len(data) > self._rotate_at_bytes:
            self._rotate()
        if self._torn:
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        self._torn = written < len(data)
        if self._torn:  # a full disk takes what fits, and says so only at the next write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    def _follow(self) -> int:
        """Make the descriptor the file that is at the path now; return its size.

        A line that slips into a file that another process has just rotated away is still in the log.
        """
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if self._descriptor < 0 or status is None or (status.st_dev, status.st_ino) != self._inode:
            self.close()
            self._descriptor = self._open()
            status = os.fstat(self._descriptor)
            self._inode = (status.st_dev, status.st_ino)
        return status.st_size

    def _open(self) -> int:
        try:
            return os.open(self.path, _OPEN_FLAGS, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            return os.open(self.path, _OPEN_FLAGS, 0o600)

    def _rotate(self) -> None:
        """Move the file to `.1`, unless another process is doing so or has done so."""
        lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.stat(self.path, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == self._inode:
                for number in range(KEPT_FILES, 1, -1):
                    _rename_if_there(f"{self.path}.{number - 1}", f"{self.path}.{number}")
                os.rename(self.path, f"{self.path}.1")
        except (BlockingIOError, FileNotFoundError):
            pass  # the other process rotates
        finally:
            os.close(lock)
        self._follow()

    def _remember(self, error: OSError) -> None:
        first = self.failure is None
        self.failure = error
        if first and self._on_failure is not None:
            with suppress(OSError):  # nobody may be left to hear it; `failure` still stops the gateway
                self._on_failure(error)


def line(event: Event, *, sandbox_id: str, seconds: float) -> str:
    """Render one event as a JSON line in ASCII, final newline included. `seconds` since the epoch."""
    fields: dict[str, str | int | float] = {
        "time": timestamp(seconds),
        "sandbox": _cut(sandbox_id),
        "event": event.kind,
    }
    for name in Event.__slots__[1:]:
        value = getattr(event, name)
        if value is None:
            continue
        if name == "path":
            value = _without(value, "?#")
        elif name == "host":
            value = _without(value.rpartition("@")[2], "/?#")
        fields[name] = _cut(value) if isinstance(value, str) else value
    return json.dumps(fields, separators=(",", ":")) + "\n"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds. `datetime` would take longer to import than the log to open."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"


def _without(value: str, stops: str) -> str:
    for stop in stops:
        value = value.partition(stop)[0]
    return value


def _cut(value: str) -> str:
    return value if len(value) <= TEXT_LIMIT_CHARACTERS else value[: TEXT_LIMIT_CHARACTERS - 1] + "…"


def _rename_if_there(source: str, target: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(source, target)
