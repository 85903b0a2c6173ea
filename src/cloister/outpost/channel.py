"""Frames over two descriptors, on an event loop: standard input and output of a container, seen from either side.

Rule 1: sending never waits. What the other half does not take yet is kept, and `backlog` says how much that is: who
        sends much looks there first, and goes on when `room` is called.
Rule 2: the end of either direction, or a frame that is none, is the end of both; it is told once.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from cloister.outpost import frames

HIGH_WATER_BYTES = 256 << 10  # streams wait above it
_CHUNK_BYTES = 256 << 10
_VECTOR = 64


class Channel:
    """Both directions. `hear` gets each frame, `ended` why there are no more, `room` that the backlog has shrunk."""

    def __init__(
        self,
        reading: int,
        writing: int,
        *,
        limit_bytes: int,
        hear: Callable[[frames.Message | frames.Data], None],
        ended: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reading, self._writing = reading, writing
        self._frames = frames.Frames(limit_bytes=limit_bytes)
        self._hear, self._ended = hear, ended
        self.room: Callable[[], None] = lambda: None
        self._queue: deque[bytes] = deque()
        self._open = True
        self._waits = False
        self._drained: asyncio.Future[None] | None = None
        self.backlog = 0
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        self._loop.add_reader(reading, self._readable)

    def send(self, message: frames.Message) -> None:
        """A message; nothing once the channel has ended."""
        self._put(frames.message(message))

    def send_data(self, stream: int, content: bytes) -> None:
        """Bytes of a stream."""
        self._put(frames.data(stream, content))

    async def drained(self) -> None:
        """Until all has been written, or the channel has ended."""
        while self._queue and self._open:
            self._drained = self._loop.create_future()
            await self._drained

    def close_writing(self) -> None:
        """Nothing more will be sent; what comes is still heard. Idempotent."""
        if self._writing >= 0:
            self._flush()
            self._loop.remove_writer(self._writing)
            os.close(self._writing)
            self._writing = -1
            self._queue.clear()
            self.backlog = 0

    def close(self) -> None:
        """End both directions without a word. Idempotent."""
        self._open = False
        self.close_writing()
        if self._reading >= 0:
            self._loop.remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1

    def _put(self, frame: bytes) -> None:
        if self._writing < 0 or not self._open:
            return
        self._queue.append(frame)
        self.backlog += len(frame)
        if not self._waits:
            self._flush()

    def _flush(self) -> None:
        """Write what can be written now; the rest when there is room."""
        try:
            while self._queue:
                part = [self._queue[at] for at in range(min(_VECTOR, len(self._queue)))]
                self._written(os.writev(self._writing, part))
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(error.strerror or type(error).__name__)
            return
        if bool(self._queue) != self._waits:
            self._waits = bool(self._queue)
            if self._waits:
                self._loop.add_writer(self._writing, self._writable)
            else:
                self._loop.remove_writer(self._writing)

    def _written(self, count: int) -> None:
        self.backlog -= count
        while count:
            first = self._queue.popleft()
            if len(first) > count:
                self._queue.appendleft(first[count:])
                return
            count -= len(first)

    def _writable(self) -> None:
        before = self.backlog
        self._flush()
        if before > self.backlog and self.backlog < HIGH_WATER_BYTES:
            self.room()
        self._tell_drained()

    def _readable(self) -> None:
        try:
            data = os.read(self._reading, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or type(error).__name__)
            return
        if not data:
            self._end("it ended within a frame" if self._frames.is_within else "")
            return
        try:
            for frame in self._frames.feed(data):
                if not self._open:
                    return
                self._hear(frame)
        except frames.FrameError as error:
            self._end(str(error))

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done() and not (self._queue and self._open):
            self._drained.set_result(None)

    def _end(self, why: str) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):
                self.close()
            self._tell_drained()
            self._ended(why)
