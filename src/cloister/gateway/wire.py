"""A connection that is still being read by us: a non-blocking socket, and what came that nobody has used yet.

Rule 1: whoever waits here has set a deadline (`asyncio.timeout`); a wire sets none of its own.
Rule 2: `buffer` never holds more than its reader asked for plus one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Protocol

from cloister.errors import UntrustedInputError

READ_BYTES = 64 * 1024
SCRATCH_BYTES = 256 * 1024
_TURNS = 4
_LINGER_S = 2.0
_LINGER_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close(2) sends RST


class Wire(Protocol):
    """Either a socket, or TLS over one (`tls.TlsWire`)."""

    buffer: bytearray
    truncated: bool  # the stream ended, and not as its protocol ends one

    @property
    def descriptor(self) -> int:
        """The socket's, or -1 if it is closed."""

    async def more(self) -> bool:
        """Read once into `buffer`; False at the end of the stream."""

    async def send(self, data: bytes) -> None:
        """Write all of `data`."""

    async def finish(self) -> None:
        """Say that no more will be sent, and let the other side read what was."""

    def stale(self) -> bool:
        """True if the other side has closed, or has sent what nobody asked for."""

    def close(self) -> None:
        """Close it, now."""

    def reset(self) -> None:
        """Close it so that what was sent cannot be taken for whole."""


class _Scratch(threading.local):
    """Where the kernel puts what came. A new object for each read would be mapped, filled with zeros and unmapped."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SCRATCH_BYTES))


scratch = _Scratch()


def _receive(sock: socket.socket, limit_bytes: int) -> bytes:
    view = scratch.view
    return bytes(view[: sock.recv_into(view, min(limit_bytes, SCRATCH_BYTES))])


class SocketWire:
    """A plain TCP connection. Owns the socket until `detach`.

    Waiting for bytes leaves the loop's reader in place, and the reader reads: most connections wait again at once, and
    telling epoll twice a request, or having it tell twice of the same bytes, is a tenth of what a small request costs.
    """

    __slots__ = (
        "_drained",
        "_limit_bytes",
        "_loop",
        "_owned",
        "_registered",
        "_returned",
        "_turns",
        "_waiting",
        "buffer",
        "sock",
    )
    truncated = False

    def __init__(self, sock: socket.socket, early: bytes = b"") -> None:
        self._loop = asyncio.get_running_loop()
        self._owned = True
        self._registered = False
        self._drained = False
        self._turns = 0  # reads without a wait
        self._waiting: asyncio.Future[bytes] | None = None
        self._limit_bytes = READ_BYTES
        self._returned = b""  # read for somebody who then gave up waiting
        self.sock = sock
        self.buffer = bytearray(early)

    @property
    def descriptor(self) -> int:
        return self.sock.fileno()

    async def more(self) -> bool:
        data = await self.receive(READ_BYTES)
        self.buffer += data
        return bool(data)

    async def receive(self, limit_bytes: int) -> bytes:
        """The next bytes, past the buffer; b"" at the end. OSError."""
        if self._returned:
            data, self._returned = self._returned, b""
            return data
        if not self._drained:
            if (turns := self._turns + 1) > _TURNS:
                turns = 0
                await asyncio.sleep(0)  # two fast peers would leave nobody else a turn
            self._turns = turns
            try:
                data = _receive(self.sock, limit_bytes)
            except BlockingIOError:
                pass
            else:
                self._drained = 0 < len(data) < limit_bytes
                return data
        self._turns = 0
        data = await self._arrival(limit_bytes)
        self._drained = 0 < len(data) < limit_bytes
        return data

    async def send(self, data: bytes) -> None:
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._loop.sock_sendall(self.sock, memoryview(data)[sent:])

    async def _arrival(self, limit_bytes: int) -> bytes:
        """Wait for bytes and read them."""
        if not self._registered:
            self._loop.add_reader(self.sock.fileno(), self._arrived)
            self._registered = True
        self._limit_bytes = limit_bytes
        waiting = self._waiting = self._loop.create_future()
        try:
            data: bytes = await waiting
            return data
        except asyncio.CancelledError:
            if not waiting.cancelled() and waiting.exception() is None:
                self._returned = waiting.result()  # it came as the wait was given up: the next reader's
                self._drained = False
            raise
        finally:
            self._waiting = None

    def _arrived(self) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():  # nobody wants it yet: do not be called again and again
            self._unregister()
            return
        try:
            data = _receive(self.sock, self._limit_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            waiting.set_exception(error)
        else:
            waiting.set_result(data)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self.sock.fileno())

    async def finish(self) -> None:
        """Half-close, then read on for a moment: closing with unread bytes resets, which eats the answer."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            async with asyncio.timeout(_LINGER_S):
                while left > 0 and await self.more():
                    left -= len(self.buffer)
                    self.buffer.clear()
        except (OSError, TimeoutError):
            pass  # it was only a courtesy

    def stale(self) -> bool:
        """True if the other side has closed, or has sent what nobody asked for."""
        if self.buffer or self._returned:
            return True
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def detach(self) -> socket.socket:
        """Give the socket away; `close` does nothing from now on. What has been read is in `buffer`."""
        self._unregister()
        self.buffer += self._returned
        self._returned = b""
        self._owned = False
        return self.sock

    def reset(self) -> None:
        """Close with a reset (RST), which no reader takes for an end."""
        if self._owned and self.sock.fileno() >= 0:
            self._unregister()
            with contextlib.suppress(OSError):  # gone already
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.sock.close()

    def close(self) -> None:
        """Close the socket, unless it was given away."""
        if self._owned and self.sock.fileno() >= 0:
            self._unregister()
            self.sock.close()


def take(wire: Wire, size: int | None = None) -> bytes:
    """Remove and return the first `size` bytes of the buffer (all of it by default)."""
    if size is None or size >= len(wire.buffer):
        data = bytes(wire.buffer)
        wire.buffer.clear()
        return data
    with memoryview(wire.buffer) as view:
        data = bytes(view[:size])
    del wire.buffer[:size]
    return data


async def read_head(wire: Wire, *, limit_bytes: int) -> bytes | None:
    """The bytes up to and with the first empty line; None if the stream ends before the first byte.

    A head that breaks the rules of `strict.py` so that it might never end is over at once: that judge gets
    what there is.
    """
    searched = 0
    while (end := wire.buffer.find(b"\r\n\r\n", searched)) < 0:
        if len(wire.buffer) > limit_bytes:
            raise UntrustedInputError("the HTTP head is too long")
        if b"\n\n" in wire.buffer[searched:] or wire.buffer.startswith((b"\n", b"\r\n")):
            return take(wire)  # bare LF, or a leading empty line: no need to wait for more of it
        first_end = wire.buffer.find(b"\n")
        if (
            first_end >= 0
            and b" HTTP/" not in wire.buffer[:first_end]
            and not wire.buffer.startswith(b"HTTP/")
        ):
            return take(wire)  # another protocol that begins with a letter, such as SSH
        searched = max(0, len(wire.buffer) - 3)
        had = bool(wire.buffer)
        if not await wire.more():
            if had:
                raise UntrustedInputError("the connection ended within an HTTP head")
            return None
    if end + 4 > limit_bytes:
        raise UntrustedInputError("the HTTP head is too long")
    return take(wire, end + 4)
