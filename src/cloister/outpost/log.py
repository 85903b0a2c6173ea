"""The audit log, written from afar: each line goes to the host, which writes it and says so.

Rule 1: a line is on its way before what it tells of goes on; `write` never waits and never raises.
Rule 2: `failure` stops what is new (docs/adr/0040): while the host cannot write, and while it does not confirm for
        more than LAG_S, or more than LINES_LIMIT lines.
Rule 3: bounded: beyond KEPT_LIMIT lines that nobody has confirmed they are counted, and the count is told.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable

from cloister.audit.log import Event
from cloister.outpost.frames import Message

LAG_S = 2.0
LINES_LIMIT = 2048
KEPT_LIMIT = 16384


class FarLog:
    """The log as the gateway sees it. `send` passes a message on to the host."""

    def __init__(
        self, send: Callable[[Message], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._clock = clock
        self._number = 0
        self._unconfirmed: deque[tuple[int, float]] = deque()
        self._lost = 0
        self._refused: OSError | None = None

    @property
    def failure(self) -> OSError | None:
        """Why nothing new may be let out."""
        if self._refused is not None:
            return self._refused
        waiting = self._unconfirmed
        if len(waiting) > LINES_LIMIT or (waiting and self._clock() - waiting[0][1] > LAG_S):
            return OSError(errno.ETIMEDOUT, "the host does not confirm what is written")
        return None

    def write(self, event: Event) -> None:
        """Send one line."""
        if len(self._unconfirmed) >= KEPT_LIMIT:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self._put(
                Event(kind="alarm", text=f"{lost} lines could not be written: the host did not take them")
            )
        self._put(event)

    def close(self) -> None:
        """Nothing more is written; what was sent is on its way."""

    def confirmed(self, number: int, error: int | None) -> None:
        """The host has taken the lines up to `number`, and written them unless there was an `error`."""
        while self._unconfirmed and self._unconfirmed[0][0] <= number:
            self._unconfirmed.popleft()
        self._refused = None if error is None else OSError(error, os.strerror(error))

    def _put(self, event: Event) -> None:
        self._number += 1
        self._unconfirmed.append((self._number, self._clock()))
        fields = {name: getattr(event, name) for name in Event.__slots__}
        self._send(
            {
                "op": "line",
                "number": self._number,
                "event": {name: value for name, value in fields.items() if value is not None},
            }
        )
