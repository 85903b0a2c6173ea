"""Move bytes between two connected sockets, both ways, until both ends have finished.

Rule 1: driven by the event loop's reader and writer callbacks: no task and no coroutine per connection or
        chunk.
Rule 2: back-pressure. A source is not read while its sink is full; what waits is one small buffer or one
        pipe.
Rule 3: an end of stream is passed on as a half-close, a reset as a reset. Nothing times out here: whether who has
        ended its stream is still there to listen, the kernel finds out (keepalive), and is asked now and then.
Rule 4: an idle splice holds two descriptors and no pipe.

Small messages are copied through one shared buffer: two system calls and no pipe. A source that fills the
buffer is bulk, and goes through a pipe with splice(2), which does not copy into this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable

from cloister.gateway.pipes import PIPE_BYTES, Pipe, PipePool

COPY_BYTES = 16 * 1024  # one TLS record; also the most that a stalled direction holds outside a pipe
_BULK_ENDS_BELOW_BYTES = 4 * 1024
_TURNS = 4  # at most so many pipefuls before other connections have their turn
_NO_SPLICE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})  # a kernel or a filter without splice(2)
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_LOOK_S = 60.0  # between two looks at a side that has ended its stream
_KEEPALIVE_IDLE_S = 60
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close(2) sends RST

_BUFFER = memoryview(bytearray(COPY_BYTES))  # shared: it is empty again before a callback returns


class Splice:
    """Two sockets joined. Owns both and closes them; `on_end(splice)` is called once, after that."""

    __slots__ = ("_down", "_look", "_loop", "_on_end", "_open", "_up", "error")

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        upstream: socket.socket,
        pipes: PipePool,
        on_end: Callable[[Splice], None],
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._open = True
        self._look: asyncio.TimerHandle | None = None
        self.error: Exception | None = None
        self._up = _Direction(self, loop, pipes, client, upstream)
        self._down = _Direction(self, loop, pipes, upstream, client)

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

    def direction_ended(self, source: socket.socket) -> None:
        """Called by a direction that has passed on the end of its source's stream."""
        if self._open and self._up.ended and self._down.ended:
            self._finish()
        elif self._open:
            # No event tells that it is gone: its end of stream would be readable for ever, so nobody waits for it.
            source.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
            self._look = self._loop.call_later(_LOOK_S, self._look_at, source)

    def _look_at(self, source: socket.socket) -> None:
        if number := source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fail(OSError(number, os.strerror(number)))
        else:
            self._look = self._loop.call_later(_LOOK_S, self._look_at, source)

    def _finish(self) -> None:
        self._open = False
        if self._look is not None:
            self._look.cancel()
        for direction in (self._up, self._down):
            direction.stop()
        self._up.source.close()
        self._up.sink.close()
        self._on_end(self)


class _Direction:
    """From `source` to `sink`. What waits is in `_pending`, then in `_pipe` (`_held` bytes)."""

    __slots__ = (
        "_bulk",
        "_held",
        "_loop",
        "_pending",
        "_pipe",
        "_pipes",
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
        pipes: PipePool,
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        self._splice = splice
        self._loop = loop
        self._pipes = pipes
        self.source = source
        self.sink = sink
        self.total_bytes = 0
        self.ended = False
        self._source_ended = False
        self._stalled = False
        self._bulk = False
        self._pending = b""
        self._pipe: Pipe | None = None
        self._held = 0

    def start(self, first: bytes) -> None:
        self._loop.add_reader(self.source.fileno(), self._readable)
        if first:
            self.total_bytes += len(first)
            self._pending = first
            self._guarded(self._drain)

    def stop(self) -> None:
        """Forget the sockets and give the pipe back."""
        if not self._source_ended:
            self._loop.remove_reader(self.source.fileno())
        if self._stalled:
            self._loop.remove_writer(self.sink.fileno())
        self._pending = b""
        if self._pipe is not None:
            self._pipes.discard(self._pipe)
            self._pipe = None

    def _readable(self) -> None:
        try:
            if not (self._bulk and self._move_by_pipe()):
                self._move_by_copy()
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

    def _move_by_copy(self) -> None:
        count = self.source.recv_into(_BUFFER)
        if not count:
            self._end_source()
            return
        self.total_bytes += count
        self._bulk = count == COPY_BYTES
        try:
            sent = self.sink.send(_BUFFER[:count])
        except BlockingIOError:
            sent = 0
        if sent < count:
            self._pending = bytes(_BUFFER[sent:count])
            self._stall()

    def _move_by_pipe(self) -> bool:
        """False if there is no pipe to be had."""
        pipe = self._pipe = self._pipes.take()
        if pipe is None:
            return False
        try:
            for _ in range(_TURNS):
                count = os.splice(self.source.fileno(), pipe[1], PIPE_BYTES, flags=_FLAGS)
                if not count:
                    self._end_source()
                    break
                self.total_bytes += count
                self._held = count
                self._empty_pipe(pipe)
                if self._held:
                    self._stall()
                    return True
                if count < _BULK_ENDS_BELOW_BYTES:
                    self._bulk = False
                    break
        except BlockingIOError:
            self._bulk = False
        except OSError as error:
            if error.errno not in _NO_SPLICE or self._held:
                raise
            self._pipes.disable()  # the reader fires again, finds no pipe, and copies
        if self._pipe is not None:  # else the end of the source has ended the whole splice
            self._give_back()
        return True

    def _empty_pipe(self, pipe: Pipe) -> None:
        try:
            while self._held:
                self._held -= os.splice(pipe[0], self.sink.fileno(), self._held, flags=_FLAGS)
        except BlockingIOError:
            pass

    def _drain(self) -> None:
        """Write what waits; read on when all of it is gone."""
        try:
            while self._pending:
                self._pending = self._pending[self.sink.send(self._pending) :]
        except BlockingIOError:
            pass
        if not self._pending and self._pipe is not None:
            self._empty_pipe(self._pipe)
            if not self._held:
                self._give_back()
        if self._pending or self._held:
            self._stall()
        elif self._stalled:
            self._stalled = False
            self._loop.remove_writer(self.sink.fileno())
            self._loop.add_reader(self.source.fileno(), self._readable)

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
        self._splice.direction_ended(self.source)

    def _give_back(self) -> None:
        if self._pipe is not None:
            self._pipes.give(self._pipe)
            self._pipe = None
