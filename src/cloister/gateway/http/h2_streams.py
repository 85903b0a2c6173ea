"""One stream of an HTTP/2 connection: what came and was not read yet, and the ways to write.

Rule 1: a window is opened again only for what `read` has delivered; `write` returns when the peer's window has taken
        the bytes and the socket all but a bounded rest.
Rule 2: bytes that wait for a reader cost their size, in however many frames they came.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

import h2.errors
import h2.exceptions

from cloister.gateway.http.body import PART_BYTES

if TYPE_CHECKING:
    from cloister.gateway.http.h2_connection import Connection
    from cloister.messages import Headers

_SMALL_PART_BYTES = 4096  # below this, a part is joined with the one before


class GoneError(Exception):
    """The stream or its connection has ended.

    `refused`: the peer has not acted on it (RFC 9113 section 8.7). `closed`: the connection has ended as a whole.
    """

    def __init__(self, reason: str, *, refused: bool = False, closed: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        self.closed = closed


class Stream:
    """One stream: what came and was not read yet, and the ways to write."""

    __slots__ = (
        "_connection",
        "_parts",
        "_waiting",
        "_writing",
        "ended",
        "error",
        "head",
        "id",
        "sent",
        "trailers",
        "unread_credit",
    )

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection = connection
        self.id = stream_id
        self._parts: deque[bytes | bytearray] = deque()
        self.unread_credit = 0  # of the flow-control windows, for what waits to be read, padding included
        self._waiting: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self.ended = False  # the peer has sent all
        self.sent = False  # we have
        self.error: GoneError | None = None
        self.trailers: Headers = ()
        self.head: Headers | None = None

    @property
    def at_hand(self) -> bool:
        """Whether a read need not wait."""
        return bool(self._parts) or self.ended or self.error is not None

    @property
    def at_hand_parts(self) -> bool:
        """Whether bytes wait to be read."""
        return bool(self._parts)

    def forget(self) -> None:
        """It is over on both sides."""
        self._connection.forget(self)

    async def read(self) -> bytes:
        """The next part; b"" at the end. GoneError.

        A reset behind the end takes nothing back: so a server says that it wants no more of the request
        (RFC 9113 section 8.1), as those of gRPC do with an error status.
        """
        while not self._parts:
            if self.ended:
                return b""
            if self.error is not None:
                raise self.error
            await self.wait()
        parts, size = [self._parts.popleft()], 0
        while self._parts and (size := size + len(parts[-1])) + len(self._parts[0]) <= PART_BYTES:
            parts.append(self._parts.popleft())
        data = b"".join(parts)
        credit = min(len(data), self.unread_credit) if self._parts else self.unread_credit
        self.unread_credit -= credit
        self._connection.acknowledge(self.id, credit)
        return data

    async def write(self, data: bytes) -> None:
        """Send a part, as fast as the peer takes it. GoneError."""
        connection = self._connection
        view = memoryview(data)
        await connection.room()
        while view:
            if self.error is not None:
                raise self.error
            try:
                window = connection.protocol.local_flow_control_window(self.id)
                if window <= 0:
                    await self._wait_for_window()
                    continue
                step = min(window, connection.protocol.max_outbound_frame_size, len(view))
                connection.protocol.send_data(self.id, view[:step])
            except h2.exceptions.ProtocolError as error:
                raise self._gone(error) from None
            view = view[step:]
        connection.flush_soon()

    async def send_headers(self, headers: Headers, *, ended: bool) -> None:
        """A head, or trailers. GoneError."""
        if self.error is not None:
            raise self.error
        try:
            self._connection.protocol.send_headers(self.id, headers, end_stream=ended)
        except h2.exceptions.ProtocolError as error:
            raise self._gone(error) from None
        self.sent = self.sent or ended
        self._connection.flush_soon()
        await self._connection.room()

    async def end(self) -> None:
        """No more from us. GoneError."""
        if self.sent:
            return
        if self.error is not None:
            raise self.error
        try:
            self._connection.protocol.end_stream(self.id)
        except h2.exceptions.ProtocolError as error:
            raise self._gone(error) from None
        self.sent = True
        self._connection.flush_soon()

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        """End it on both sides, now. Idempotent."""
        if self.error is None:
            self.fail(GoneError("the stream was reset"))
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._connection.protocol.reset_stream(self.id, code)
        self._connection.forget(self)

    # What the connection tells.

    def deliver(self, data: bytes, credit: int) -> None:
        """A part has come. Small ones are joined: a million of one byte must not become a million objects."""
        self.unread_credit += credit
        last = self._parts[-1] if self._parts else None
        if last is None or len(data) >= _SMALL_PART_BYTES or len(last) >= PART_BYTES // 2:
            self._parts.append(data)
        else:
            if not isinstance(last, bytearray):
                last = self._parts[-1] = bytearray(last)
            last += data
        self.wake()

    def wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def window_opened(self) -> None:
        if self._writing is not None and not self._writing.done():
            self._writing.set_result(None)

    def fail(self, error: GoneError) -> None:
        self.error = self.error or error
        self.wake()
        self.window_opened()

    async def wait(self) -> None:
        """Until something has come."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    async def _wait_for_window(self) -> None:
        self._writing = (
            asyncio.get_running_loop().create_future()
        )  # before anything waits: it may open meanwhile
        try:
            self._connection.flush_soon()
            await self._writing
            await self._connection.room()
        finally:
            self._writing = None

    def _gone(self, error: Exception) -> GoneError:
        return self.error or GoneError(f"the stream cannot be written: {type(error).__name__}")
