"""Connections that go on as a stream of frames: one socket here, one at the other half, and bytes between them.

Used by both halves. Who opens a stream, and what the other half does then, is theirs (near.py, far.py); this copies.

    {"op": "credit", "stream", "bytes"}   so many bytes have been passed on, and may follow
    {"op": "done", "stream"}              no more bytes come: the sender's socket has said so
    {"op": "reset", "stream"}             it is over, and not well

Rule 1: a half sends no more than WINDOW_BYTES that the other has not passed on: memory is bounded on both sides, and a
        stream that stands still holds up no other one. Who sends more breaks the protocol.
Rule 2: an end passes on as an end and a reset as a reset: nobody takes a broken answer for a short one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from cloister.outpost import frames
from cloister.outpost.channel import HIGH_WATER_BYTES, Channel

WINDOW_BYTES = 512 << 10
STREAMS_LIMIT = 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER, at once: RST (socket(7))


class Streams:
    """All streams of one half."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        channel.room = self.resume
        self.joined: dict[int, _Stream] = {}
        self.waiting: set[int] = set()  # have something to read, and the channel no room

    def __len__(self) -> int:
        return len(self.joined)

    def join(self, number: int, sock: socket.socket, ended: Callable[[], None] = lambda: None) -> None:
        """Copy between a connected socket, which is owned from now on, and the stream of that number."""
        sock.setblocking(False)
        self.joined[number] = _Stream(number, sock, self, ended)

    def hear(self, frame: frames.Message | frames.Data) -> None:
        """A frame of a stream. FrameError if it breaks Rule 1; one of a stream that has just ended is dropped."""
        number = frame.stream if isinstance(frame, frames.Data) else frame.get("stream")
        stream = self.joined.get(number) if isinstance(number, int) else None
        if stream is None:
            return
        if isinstance(frame, frames.Data):
            stream.take(frame.content)
            return
        match frame.get("op"), frame.get("bytes"):
            case "credit", int(count) if 0 < count <= WINDOW_BYTES:
                stream.allow(count)
            case "done", None:
                stream.finish()
            case "reset", None:
                stream.reset(tell=False)
            case operation, _:
                raise frames.FrameError(f"a stream cannot be told {operation!r:.40}")

    def drop(self, number: int, *, tell: bool) -> None:
        """Break one off; `tell` the other half."""
        if number in self.joined:
            self.joined[number].reset(tell=tell)

    def resume(self) -> None:
        """The channel has room again."""
        for number in [*self.waiting]:
            self.waiting.discard(number)
            if number in self.joined:
                self.joined[number].listen()

    def close(self) -> None:
        """Break off all of them."""
        for stream in [*self.joined.values()]:
            stream.reset(tell=False)

    def forget(self, number: int) -> None:
        """A stream has ended."""
        self.joined.pop(number, None)
        self.waiting.discard(number)


class _Stream:
    """One of them. `credit` is what may be sent, `owed` what has come and waits for the socket."""

    def __init__(self, number: int, sock: socket.socket, all_: Streams, ended: Callable[[], None]) -> None:
        self._number, self._sock, self._all, self._ended = number, sock, all_, ended
        self._channel = all_.channel
        self._loop = asyncio.get_running_loop()
        self._credit = WINDOW_BYTES
        self._owed = bytearray()
        self._uncredited = 0
        self._read_all = self._told_all = False
        self._writes = False
        self._is_open = True
        self.listen()

    def listen(self) -> None:
        """Read the socket from now on, if anything may be sent."""
        if self._is_open and not self._read_all and self._credit > 0:
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def allow(self, count: int) -> None:
        """The other half has passed on so many bytes."""
        self._credit += count
        if self._credit > WINDOW_BYTES:
            raise frames.FrameError("more credit than was used")
        self.listen()

    def take(self, content: bytes) -> None:
        """Bytes for the socket."""
        if self._told_all or len(self._owed) + self._uncredited + len(content) > WINDOW_BYTES:
            raise frames.FrameError("more bytes than were allowed")
        self._owed += content
        self._write()

    def finish(self) -> None:
        """No more bytes come."""
        self._told_all = True
        self._write()

    def reset(self, *, tell: bool = True) -> None:
        """Break it off: the socket is reset."""
        if not self._is_open:
            return
        if tell:
            self._channel.send({"op": "reset", "stream": self._number})
        with suppress(OSError):  # it has gone already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _readable(self) -> None:
        if self._channel.backlog > HIGH_WATER_BYTES:
            self._loop.remove_reader(self._sock.fileno())
            self._all.waiting.add(self._number)
            return
        try:
            content = self._sock.recv(min(frames.DATA_LIMIT_BYTES, self._credit))
        except BlockingIOError:
            return
        except OSError:
            self.reset()
            return
        if not content:
            self._read_all = True
            self._loop.remove_reader(self._sock.fileno())
            self._channel.send({"op": "done", "stream": self._number})
            self._end_if_all()
            return
        self._credit -= len(content)
        if self._credit <= 0:
            self._loop.remove_reader(self._sock.fileno())
        self._channel.send_data(self._number, content)

    def _write(self) -> None:
        if not self._is_open:
            return
        try:
            while self._owed:
                count = self._sock.send(self._owed)
                del self._owed[:count]
                self._uncredited += count
        except BlockingIOError:
            pass
        except OSError:
            self.reset()
            return
        if self._uncredited >= WINDOW_BYTES // 4 or (self._uncredited and not self._owed):
            self._channel.send({"op": "credit", "stream": self._number, "bytes": self._uncredited})
            self._uncredited = 0
        if bool(self._owed) != self._writes:
            self._writes = bool(self._owed)
            if self._writes:
                self._loop.add_writer(self._sock.fileno(), self._write)
            else:
                self._loop.remove_writer(self._sock.fileno())
        if self._told_all and not self._owed:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    self.reset()
                    return
            self._end_if_all()

    def _end_if_all(self) -> None:
        if self._read_all and self._told_all and not self._owed:
            self._close()

    def _close(self) -> None:
        self._is_open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._all.forget(self._number)
        self._ended()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets that are connected with each other over this machine's loopback, as socketpair(2) makes others.

    TCP, because it is what all that handle them expect: options, half-closes and resets. The peer is compared: another
    process could connect first.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=5)
        while True:
            theirs, peer = listener.accept()
            if peer == ours.getsockname():
                break
            theirs.close()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def error_text(error: OSError) -> str:
    """The kernel's words for an error."""
    return os.strerror(error.errno) if error.errno else type(error).__name__
