"""An HTTP/2 connection over a wire: what the server's and the client's side have in common (RFC 9113). Framing is h2's.

Rule 1: one task writes to the wire, so that no stream that is cancelled can leave half a frame behind, and what several
        streams have to say leaves in one piece.
Rule 2: what costs us more than its sender (pings, settings, resets, empty frames) is counted; a flood ends the
        connection.
Rule 3: when the connection ends, every stream of it learns so.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import Frame

from cloister.errors import UntrustedInputError
from cloister.gateway.http import h2_heads
from cloister.gateway.http.h2_streams import GoneError, Stream
from cloister.gateway.wire import take

if TYPE_CHECKING:
    from h2.config import H2Configuration
    from hyperframe.frame import GoAwayFrame

    from cloister.gateway.wire import Wire

STREAM_WINDOW_BYTES = 1 << 20
CONNECTION_WINDOW_BYTES = 8 << 20
HEADER_LIST_BYTES = 1 << 16
_HEADER_TABLE_BYTES = 4096
STREAMS_LIMIT = 128
UNSENT_LIMIT_BYTES = 128 * 1024
_ANSWERS_LIMIT_BYTES = 1 << 20  # what streams write stays far below
_FINISH_S = 2.0
_CHEAP_EVENTS_LIMIT = 1000  # a second, more than four for each that carries something
_RESETS_LIMIT = 200  # a second
_CHEAP = (
    h2.events.PingReceived,
    h2.events.RemoteSettingsChanged,
    h2.events.PriorityUpdated,
    h2.events.StreamReset,
    h2.events.UnknownFrameReceived,
    h2.events.InformationalResponseReceived,
)
_USEFUL = (h2.events.RequestReceived, h2.events.ResponseReceived)
_USEFUL_WEIGHT = 4


# h2 writes every frame out, its body in hexadecimal, for a log that is off: a fifth of what a download costs.
Frame.__repr__ = object.__repr__  # type: ignore[method-assign]


class _Protocol(h2.connection.H2Connection):
    """h2 takes GOAWAY for the end of everything; what was asked before it is still answered (RFC 9113 section 6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]


class Connection:
    """One connection and its streams. Who owns it reads events, takes its own, and dispatches the others."""

    def __init__(self, wire: Wire, config: H2Configuration) -> None:
        self.wire = wire
        self.protocol = _Protocol(config)
        self.streams: dict[int, Stream] = {}
        self.closing = False
        self._writer: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._space = asyncio.Event()
        self._pending: list[bytes] = []
        self._unsent = 0  # bytes, of `_pending` and of what is being sent
        self._last = False  # end when all is sent
        self._ended = False  # nothing can be sent any more
        self._counted_at = 0.0
        self._cheap = self._resets = 0

    def start(self, extra: dict[int, int]) -> None:
        """Send our settings."""
        self._writer = asyncio.get_running_loop().create_task(self._write())
        self.protocol.initiate_connection()
        self.protocol.update_settings(
            {
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
                **extra,
            }
        )
        self.protocol.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65535)
        self.flush_soon()

    async def receive(self) -> list[h2.events.Event] | None:
        """The events of the next bytes; None at the end of the stream. UntrustedInputError if it is no HTTP/2.

        Reading goes on while streams wait to write: two sides that both wait for the other to read would wait for ever.
        Only a peer that makes us answer without reading our answers is not read either.
        """
        self.flush_soon()
        await self.room(_ANSWERS_LIMIT_BYTES)
        if not self.wire.buffer and not await self.wire.more():
            return None
        try:
            events = self.protocol.receive_data(take(self.wire))
        except h2.exceptions.ProtocolError as error:  # h2 has written GOAWAY
            raise UntrustedInputError(f"bad HTTP/2: {type(error).__name__}") from None
        self._count(events)
        return events

    def dispatch(self, event: h2.events.Event) -> None:
        """What concerns a stream that exists, or the connection."""
        match event:
            case h2.events.DataReceived(stream_id=stream_id) if stream_id is not None:
                self._data(event, stream_id)
            case h2.events.TrailersReceived(stream_id=stream_id) if stream_id in self.streams:
                self.streams[stream_id].trailers = h2_heads.trailers(event.headers or [])
            case h2.events.StreamEnded(stream_id=stream_id) if stream_id in self.streams:
                stream = self.streams[stream_id]
                stream.ended = True
                stream.wake()
            case h2.events.StreamReset(stream_id=stream_id) if stream_id in self.streams:
                refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
                stream = self.streams[stream_id]
                stream.fail(GoneError("the peer reset the stream", refused=refused))
                self.forget(stream)
            case h2.events.WindowUpdated(stream_id=stream_id):
                for stream in self.streams.values() if not stream_id else self._only(stream_id):
                    stream.window_opened()
            case h2.events.RemoteSettingsChanged():
                # A table as large as the peer likes would be our memory, and be searched for each header.
                encoder = self.protocol.encoder
                encoder.header_table_size = min(encoder.header_table_size, _HEADER_TABLE_BYTES)
                for stream in self.streams.values():
                    stream.window_opened()
            case h2.events.ConnectionTerminated():
                self._terminated(event)

    def acknowledge(self, stream_id: int, credit: int) -> None:
        """Open the windows again by what has been read, or will not be."""
        if credit:
            with contextlib.suppress(h2.exceptions.ProtocolError, KeyError):
                self.protocol.acknowledge_received_data(credit, stream_id)
            self.flush_soon()

    async def room(self, limit_bytes: int = UNSENT_LIMIT_BYTES) -> None:
        """Wait while too much is unsent. GoneError."""
        while self._unsent > limit_bytes:
            if self._ended:
                raise GoneError("the connection broke", closed=True)
            self._space.clear()
            await self._space.wait()

    def flush_soon(self) -> None:
        """Let the writer write what h2 has to say."""
        if (data := self.protocol.data_to_send()) and not self._ended:
            self._pending.append(data)
            self._unsent += len(data)
            self._wanted.set()

    def forget(self, stream: Stream) -> None:
        """No more events for it. What it has not read will not be: the connection's window belongs to the others."""
        self.streams.pop(stream.id, None)
        credit, stream.unread_credit = stream.unread_credit, 0
        self.acknowledge(stream.id, credit)
        self.flush_soon()

    def fail(self, error: GoneError) -> None:
        """All of it has ended."""
        self.closing = True
        for stream in list(self.streams.values()):
            stream.fail(error)
        self.streams.clear()

    async def finish(self) -> None:
        """Send what there is to send, for a moment, and end the writing."""
        self.flush_soon()
        self._last = True
        self._wanted.set()
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=_FINISH_S)
        self.stop()

    def stop(self) -> None:
        """End the writing now."""
        self._ended = True
        if self._writer is not None:
            self._writer.cancel()
        self._space.set()

    async def _write(self) -> None:
        """The one writer."""
        try:
            while not self._last or self._pending:
                if not self._pending:
                    await self._wanted.wait()
                    self._wanted.clear()
                    continue
                data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
                self._pending.clear()
                await self.wire.send(data)
                self._unsent -= len(data)
                self._space.set()
        except OSError:
            self.fail(GoneError("the connection broke", closed=True))
        finally:
            self._ended = True
            self._space.set()

    def _data(self, event: h2.events.DataReceived, stream_id: int) -> None:
        credit = event.flow_controlled_length or 0
        stream = self.streams.get(stream_id)
        if stream is None or not event.data:
            self.acknowledge(stream_id, credit)  # of a stream that we have ended, or padding alone
        else:
            stream.deliver(bytes(event.data), credit)

    def _only(self, stream_id: int) -> list[Stream]:
        stream = self.streams.get(stream_id)
        return [stream] if stream is not None else []

    def _terminated(self, event: h2.events.ConnectionTerminated) -> None:
        self.closing = True
        if not self.protocol.config.client_side:
            return  # the client opens no more; what it has asked is still answered
        last = event.last_stream_id or 0
        for stream in list(self.streams.values()):
            if stream.id > last:
                stream.fail(GoneError("the peer is going away", refused=True))
                self.forget(stream)

    def _count(self, events: list[h2.events.Event]) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._counted_at > 1.0:
            self._counted_at, self._cheap, self._resets = now, 0, 0
        for event in events:
            if isinstance(event, _CHEAP):
                self._cheap += 1
                self._resets += isinstance(event, h2.events.StreamReset)
            elif isinstance(event, _USEFUL):
                self._cheap -= _USEFUL_WEIGHT
            elif isinstance(event, h2.events.DataReceived):
                self._cheap += not event.data and event.stream_ended is None
        if self._cheap > _CHEAP_EVENTS_LIMIT or self._resets > _RESETS_LIMIT:
            self.protocol.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            raise UntrustedInputError("a flood of HTTP/2 frames that carry nothing")
