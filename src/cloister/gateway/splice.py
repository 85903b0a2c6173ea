"""Move bytes between two connected sockets, both ways, until both ends have finished.

Rule 1: driven by the event loop's reader and writer callbacks: no task and no coroutine per connection or
        chunk.
Rule 2: back-pressure. A source is not read while its sink is full; what waits is COPY_BYTES, or BULK_BYTES
        in as many directions as the allowance has.
Rule 3: an end of stream is passed on as a half-close, a reset as a reset. Nothing times out here
        (keepalive does).
Rule 4: an idle splice holds two descriptors and no buffer.

All is copied through one shared buffer: two system calls a message. A source that fills COPY_BYTES is bulk, and read in
larger parts. Why not with splice(2) is in docs/adr/0024-the-byte-pump.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from cloister.gateway.allowance import Allowance

COPY_BYTES = 16 * 1024  # one TLS record; also the most that a stalled direction holds without an allowance
BULK_BYTES = 128 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close(2) sends RST

_BUFFER = memoryview(bytearray(BULK_BYTES))  # shared: it is empty again before a callback returns


class Splice:
    """Two sockets joined. Owns both and closes them; `on_end(splice)` is called once, after that."""

    __slots__ = ("_down", "_loop", "_on_end", "_open", "_up", "error")

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        upstream: socket.socket,
        allowance: Allowance,
        on_end: Callable[[Splice], None],
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._open = True
        self.error: Exception | None = None
        self._up = _Direction(self, loop, allowance, client, upstream)
        self._down = _Direction(self, loop, allowance, upstream, client)

    @property
    def sent_bytes(self) -> int:
        """Bytes taken from the client for the upstream."""
        return self._up.total_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes taken from the upstream for the client."""
        return self._down.total_bytes

    def start(self, *, to_upstream: bytes = b"", to_client: bytes = b"") -> None:
        """Begin, with bytes that were read before and must go first."""
        self._up.start(to_upstream)
        if self._open:
            self._down.start(to_client)

    def close(self) -> None:
        """End both connections now, with a reset: the gateway is going away."""
        self.fail(None)

    def fail(self, error: Exception | None) -> None:
        """One side broke: reset both, so that neither takes a cut stream for a whole one."""
        if not self._open:
            return
        self.error = error
        for side in (self._up.source, self._up.sink):
            with contextlib.suppress(OSError):  # gone already
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._finish()

    def direction_ended(self) -> None:
        """Called by a direction that has passed on its end of stream."""
        if self._open and self._up.ended and self._down.ended:
            self._finish()

    def _finish(self) -> None:
        self._open = False
        for direction in (self._up, self._down):
            direction.stop()
        self._up.source.close()
        self._up.sink.close()
        self._on_end(self)


class _Direction:
    """From `source` to `sink`. What waits is in `_pending`."""

    __slots__ = (
        "_allowance",
        "_allowed",
        "_bulk",
        "_loop",
        "_pending",
        "_source_ended",
        "_splice",
        "_stalled",
        "ended",
        "sink",
        "source",
        "total_bytes",
    )

    def __init__(
        self,
        splice: Splice,
        loop: asyncio.AbstractEventLoop,
        allowance: Allowance,
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        self._splice = splice
        self._loop = loop
        self._allowance = allowance
        self._allowed = False
        self.source = source
        self.sink = sink
        self.total_bytes = 0
        self.ended = False
        self._source_ended = False
        self._stalled = False
        self._bulk = False
        self._pending = b""

    def start(self, first: bytes) -> None:
        self._loop.add_reader(self.source.fileno(), self._readable)
        if first:
            self.total_bytes += len(first)
            self._pending = first
            self._guarded(self._drain)

    def stop(self) -> None:
        """Forget the sockets, and what waits."""
        if not self._source_ended:
            self._loop.remove_reader(self.source.fileno())
        if self._stalled:
            self._loop.remove_writer(self.sink.fileno())
        self._pending = b""
        self._give_back()

    def _readable(self) -> None:
        try:
            self._move()
        except BlockingIOError:
            pass  # it was a spurious wake-up
        except Exception as error:  # a bug of ours too: a callback that fails would be called for ever
            self._splice.fail(error)

    def _writable(self) -> None:
        self._guarded(self._drain)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # as in _readable
            self._splice.fail(error)

    def _move(self) -> None:
        limit = BULK_BYTES if self._bulk and self._allowance.left > 0 else COPY_BYTES
        count = self.source.recv_into(_BUFFER, limit)
        if not count:
            self._end_source()
            return
        self.total_bytes += count
        self._bulk = count >= COPY_BYTES
        try:
            sent = self.sink.send(_BUFFER[:count])
        except BlockingIOError:
            sent = 0
        if sent < count:
            self._pending = bytes(_BUFFER[sent:count])
            if len(self._pending) > COPY_BYTES:
                self._allowance.take()
                self._allowed = True
            self._stall()

    def _drain(self) -> None:
        """Write what waits; read on when all of it is gone."""
        try:
            while self._pending:
                self._pending = self._pending[self.sink.send(self._pending) :]
        except BlockingIOError:
            pass
        if self._pending:
            self._stall()
            return
        self._give_back()
        if self._stalled:
            self._stalled = False
            self._loop.remove_writer(self.sink.fileno())
            self._loop.add_reader(self.source.fileno(), self._readable)

    def _give_back(self) -> None:
        if self._allowed:
            self._allowed = False
            self._allowance.give()

    def _stall(self) -> None:
        if not self._stalled:
            self._stalled = True
            self._loop.remove_reader(self.source.fileno())
            self._loop.add_writer(self.sink.fileno(), self._writable)

    def _end_source(self) -> None:
        """The source has sent its last byte, and the sink has taken all: pass on the half-close."""
        self._source_ended = True
        self._loop.remove_reader(self.source.fileno())
        self.sink.shutdown(socket.SHUT_WR)
        self.ended = True
        self._splice.direction_ended()
