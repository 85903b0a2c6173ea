"""HTTP/2 as streams over a wire: what the server's and the client's side have in common (RFC 9113). Framing is h2's.

Rule 1: flow control end to end: a window is opened again only for what `read` has delivered, and `write` returns when
        the peer's window and the socket have taken the bytes.
Rule 2: what costs us more than its sender (pings, settings, resets, empty frames) is counted; a flood ends the
        connection.
Rule 3: when the connection ends, every stream of it learns so.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from typing import TYPE_CHECKING

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from cloister.errors import UntrustedInputError
from cloister.gateway.http.body import HOP_BY_HOP, PART_BYTES
from cloister.gateway.wire import take

if TYPE_CHECKING:
    from h2.config import H2Configuration

    from cloister.gateway.wire import Wire
    from cloister.messages import Headers

STREAM_WINDOW_BYTES = 1 << 20
CONNECTION_WINDOW_BYTES = 8 << 20
STREAMS_LIMIT = 128
HEADERS_LIMIT = 128
_CHEAP_EVENTS_LIMIT = 1000  # a second
_RESETS_LIMIT = 200  # a second
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_CHEAP = (
    h2.events.PingReceived,
    h2.events.RemoteSettingsChanged,
    h2.events.PriorityUpdated,
    h2.events.StreamReset,
    h2.events.UnknownFrameReceived,
)


class GoneError(Exception):
    """The stream or its connection has ended. `refused`: the peer has not acted on it (RFC 9113 section 8.7)."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


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
    )

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection = connection
        self.id = stream_id
        self._parts: deque[tuple[bytes, int]] = deque()
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
        parts, size, credit = [], 0, 0
        while self._parts and size < PART_BYTES:
            data, flow = self._parts.popleft()
            parts.append(data)
            size += len(data)
            credit += flow
        await self._connection.acknowledge(self, credit)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Send a part, as fast as the peer takes it. GoneError."""
        protocol = self._connection.protocol
        view = memoryview(data)
        while view:
            if self.error is not None:
                raise self.error
            try:
                window = protocol.local_flow_control_window(self.id)
                if window <= 0:
                    await self._wait_for_window()
                    continue
                step = min(window, protocol.max_outbound_frame_size, len(view))
                protocol.send_data(self.id, bytes(view[:step]))
            except h2.exceptions.ProtocolError as error:
                raise self._gone(error) from None
            view = view[step:]
            if not view or window == step:
                await self._connection.flush()
        if not data:
            await self._connection.flush()

    async def send_headers(self, headers: Headers, *, ended: bool) -> None:
        """A head, or trailers. GoneError."""
        if self.error is not None:
            raise self.error
        try:
            self._connection.protocol.send_headers(self.id, headers, end_stream=ended)
        except h2.exceptions.ProtocolError as error:
            raise self._gone(error) from None
        self.sent = self.sent or ended
        await self._connection.flush()

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
        await self._connection.flush()

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        """End it on both sides, now. Idempotent."""
        if self.error is None:
            self.fail(GoneError("the stream was reset"))
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._connection.protocol.reset_stream(self.id, code)
                self._connection.flush_soon()
        self._connection.forget(self)

    # What the connection tells.

    def deliver(self, data: bytes, flow: int) -> None:
        self._parts.append((data, flow))
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
            await self._connection.flush()
            await self._writing
        finally:
            self._writing = None

    def _gone(self, error: Exception) -> GoneError:
        return self.error or GoneError(f"the stream cannot be written: {type(error).__name__}")


class Connection:
    """One connection and its streams. Who owns it reads events, takes its own, and dispatches the others."""

    def __init__(self, wire: Wire, config: H2Configuration) -> None:
        self.wire = wire
        self.protocol = h2.connection.H2Connection(config)
        self.streams: dict[int, Stream] = {}
        self.closing = False
        self._lock = asyncio.Lock()
        self._soon: asyncio.Task[None] | None = None
        self._counted_at = 0.0
        self._cheap = self._resets = 0

    async def start(self, extra: dict[int, int]) -> None:
        """Send our settings. OSError."""
        self.protocol.update_settings(
            {
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 16,
                **extra,
            }
        )
        self.protocol.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65535)
        await self.flush()

    async def receive(self) -> list[h2.events.Event] | None:
        """The events of the next bytes; None at the end of the stream. UntrustedInputError if it is no HTTP/2."""
        if not self.wire.buffer and not await self.wire.more():
            return None
        try:
            events = self.protocol.receive_data(take(self.wire))
        except h2.exceptions.ProtocolError as error:
            await self.flush()  # h2 has written GOAWAY
            raise UntrustedInputError(f"bad HTTP/2: {type(error).__name__}") from None
        self._count(events)
        return events

    def dispatch(self, event: h2.events.Event) -> None:
        """What concerns a stream that exists, or the connection."""
        match event:
            case h2.events.DataReceived(stream_id=stream_id) if stream_id is not None:
                self._data(event, stream_id)
            case h2.events.TrailersReceived(stream_id=stream_id) if stream_id in self.streams:
                self.streams[stream_id].trailers = trailers(event.headers or [])
            case h2.events.StreamEnded(stream_id=stream_id) if stream_id in self.streams:
                stream = self.streams[stream_id]
                stream.ended = True
                stream.wake()
            case h2.events.StreamReset(stream_id=stream_id) if stream_id in self.streams:
                refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
                self.streams.pop(stream_id).fail(GoneError("the peer reset the stream", refused=refused))
            case h2.events.WindowUpdated(stream_id=stream_id):
                for stream in self.streams.values() if not stream_id else self._only(stream_id):
                    stream.window_opened()
            case h2.events.RemoteSettingsChanged():
                for stream in self.streams.values():
                    stream.window_opened()
            case h2.events.ConnectionTerminated():
                self._terminated(event)

    async def acknowledge(self, stream: Stream, credit: int) -> None:
        """Open the windows again by what has been read."""
        if credit:
            with contextlib.suppress(h2.exceptions.ProtocolError, KeyError):
                self.protocol.acknowledge_received_data(credit, stream.id)
            if not stream.ended or not self.closing:
                await self.flush()

    async def flush(self) -> None:
        """Write what h2 has to say. GoneError."""
        async with self._lock:
            data = self.protocol.data_to_send()
            if not data:
                return
            try:
                await self.wire.send(data)
            except OSError as error:
                self.fail(GoneError("the connection broke"))
                raise GoneError("the connection broke") from error

    def flush_soon(self) -> None:
        """As `flush`, from where nobody can wait."""
        if self._soon is None or self._soon.done():
            self._soon = asyncio.get_running_loop().create_task(self._flush_quietly())

    def forget(self, stream: Stream) -> None:
        """No more events for it."""
        self.streams.pop(stream.id, None)

    def fail(self, error: GoneError) -> None:
        """All of it has ended."""
        self.closing = True
        for stream in list(self.streams.values()):
            stream.fail(error)
        self.streams.clear()

    async def _flush_quietly(self) -> None:
        with contextlib.suppress(GoneError):
            await self.flush()

    def _data(self, event: h2.events.DataReceived, stream_id: int) -> None:
        flow = event.flow_controlled_length or 0
        stream = self.streams.get(stream_id)
        if stream is None or not event.data:
            # Of a stream that we have ended, or padding alone: nobody will read it.
            if flow:
                with contextlib.suppress(h2.exceptions.ProtocolError, KeyError):
                    self.protocol.acknowledge_received_data(flow, stream_id)
            if not event.data:
                self._cheap += 1
            return
        stream.deliver(bytes(event.data), flow)

    def _only(self, stream_id: int) -> list[Stream]:
        stream = self.streams.get(stream_id)
        return [stream] if stream is not None else []

    def _terminated(self, event: h2.events.ConnectionTerminated) -> None:
        self.closing = True
        last = event.last_stream_id or 0
        for stream in list(self.streams.values()):
            if stream.id > last:
                self.forget(stream)
                stream.fail(GoneError("the peer is going away", refused=True))

    def _count(self, events: list[h2.events.Event]) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._counted_at > 1.0:
            self._counted_at, self._cheap, self._resets = now, 0, 0
        for event in events:
            self._cheap += isinstance(event, _CHEAP)
            self._resets += isinstance(event, h2.events.StreamReset)
        if self._cheap > _CHEAP_EVENTS_LIMIT or self._resets > _RESETS_LIMIT:
            self.protocol.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self.flush_soon()
            raise UntrustedInputError("a flood of HTTP/2 frames that carry nothing")


def checked(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Headers as the protocol allows them: h2 has checked pseudo-headers and their order. UntrustedInputError."""
    if len(headers) > HEADERS_LIMIT:
        raise UntrustedInputError("too many HTTP headers")
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise UntrustedInputError("a bad HTTP header name, or a control character in a value")
    return tuple((bytes(name), bytes(value)) for name, value in headers)


def trailers(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Trailers without what must not stand there; bad ones are none."""
    try:
        return tuple(pair for pair in checked(headers) if pair[0] not in HOP_BY_HOP and pair[0][:1] != b":")
    except UntrustedInputError:
        return ()


def length(headers: Headers) -> int | None:
    """The Content-Length; None if there is none. UntrustedInputError if it is no number."""
    values = {value for name, value in headers if name == b"content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not re.fullmatch(rb"[0-9]{1,18}", value):
        raise UntrustedInputError("bad Content-Length")
    return int(value)
