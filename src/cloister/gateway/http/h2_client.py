"""HTTP/2 towards an upstream: one connection, many requests at once.

Rule 1: server push is off; a head that breaks the protocol ends its stream with an `UpstreamError`.
Rule 2: a request that the upstream says it has not acted on (GOAWAY, REFUSED_STREAM) is `StaleError`: it may go again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import h2.config
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from cloister.errors import UntrustedInputError
from cloister.gateway.http import h2_heads
from cloister.gateway.http.h2_connection import STREAMS_LIMIT, Connection
from cloister.gateway.http.h2_streams import GoneError, Stream
from cloister.gateway.http.streams import StaleError
from cloister.gateway.upstream import UpstreamError
from cloister.messages import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.gateway.http.streams import RawStream
    from cloister.gateway.wire import Wire

_CONFIG = h2.config.H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


_REPEATABLE = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE"}
)  # RFC 9110 section 9.2.1: nothing happens by them


class H2Connection:
    """A connection of the pool's."""

    def __init__(self, wire: Wire, *, address: str) -> None:
        self.address = address
        self._connection = Connection(wire, _CONFIG)
        self._task: asyncio.Task[None] | None = None
        self._retired = False
        self._open = 0  # requests, begun or about to be
        self.idle_since: float | None = None

    @classmethod
    async def start(cls, wire: Wire, *, address: str) -> H2Connection:
        """Begin on a wire whose ALPN has said so."""
        self = cls(wire, address=address)
        self._connection.start({h2.settings.SettingCodes.ENABLE_PUSH: 0})
        self._task = asyncio.create_task(self._run())
        return self

    @property
    def usable(self) -> bool:
        """Whether another stream may be opened."""
        limit = min(self._connection.protocol.remote_settings.max_concurrent_streams, STREAMS_LIMIT)
        return not self._connection.closing and not self._retired and self._open < limit

    def open(self) -> H2Upstream:
        """A stream for one request."""
        self.idle_since = None
        self._open += 1
        return H2Upstream(self)

    def retire(self) -> None:
        """Take no more requests; end when the last has ended."""
        self._retired = True
        if not self._open:
            self.close()

    def close(self) -> None:
        """End it now."""
        self._connection.fail(GoneError("the connection was closed", closed=True))
        self._connection.stop()
        if self._task is not None:
            self._task.cancel()
        self._connection.wire.close()

    def begin(self, headers: Headers, *, ended: bool) -> Stream:
        """Open a new stream with this head. StaleError if the connection takes none any more."""
        connection = self._connection
        if connection.closing:
            raise StaleError
        try:
            stream = Stream(connection, connection.protocol.get_next_available_stream_id())
            connection.protocol.send_headers(stream.id, headers, end_stream=ended)
        except h2.exceptions.ProtocolError:  # its limit has sunk, or its stream numbers are used up
            self._retired = True
            raise StaleError from None
        stream.sent = ended
        connection.streams[stream.id] = stream
        connection.flush_soon()
        return stream

    def settled(self) -> None:
        """A request has ended."""
        self._open -= 1
        if not self._open:
            self.idle_since = asyncio.get_running_loop().time()
            if self._retired or self._connection.closing:
                self.close()

    async def _run(self) -> None:
        connection = self._connection
        reason = "the upstream closed the connection"
        try:
            while (events := await connection.receive()) is not None:
                for event in events:
                    if isinstance(
                        event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived
                    ):
                        self._head(event)
                    connection.dispatch(event)
        except UntrustedInputError as error:
            reason = f"the upstream's answer is {error}"
            await connection.finish()
        except (OSError, GoneError):
            reason = "the upstream's connection broke"
        finally:
            connection.fail(GoneError(reason, closed=True))
            connection.stop()
            connection.wire.close()

    def _head(self, event: h2.events.ResponseReceived | h2.events.InformationalResponseReceived) -> None:
        stream = self._connection.streams.get(event.stream_id or 0)
        if stream is None:
            return
        try:
            stream.head = h2_heads.checked(list(event.headers or []))
            stream.wake()
        except UntrustedInputError as error:
            stream.fail(GoneError(f"the upstream's answer is bad HTTP/2: {error}"))


class H2Upstream:
    """See `streams.Upstream`."""

    __slots__ = ("_connection", "_done", "_method", "_stream", "address")

    def __init__(self, connection: H2Connection) -> None:
        self._connection = connection
        self.address = connection.address
        self._stream: Stream | None = None
        self._method = ""
        self._done = False

    @property
    def trailers(self) -> Headers:
        return self._stream.trailers if self._stream is not None else ()

    @property
    def at_hand(self) -> bool:
        return self._stream is None or self._stream.at_hand

    async def send_head(self, request: RequestHead, *, ended: bool) -> None:
        self._method = request.method
        headers = [
            (b":method", request.method.encode()),
            (b":scheme", b"https"),
            (b":authority", request.untrusted_authority.encode()),
            (b":path", request.target.encode("latin-1")),
            *request.headers,
        ]
        if request.length is not None and (request.length or request.declared_length):
            headers.append((b"content-length", b"%d" % request.length))
        self._stream = self._connection.begin(tuple(headers), ended=ended)

    async def write(self, data: bytes) -> None:
        try:
            await self._of().write(data)
        except GoneError as error:
            raise UpstreamError(str(error)) from None

    async def finish(self, trailers: Headers = ()) -> None:
        try:
            if trailers:
                await self._of().send_headers(trailers, ended=True)
            else:
                await self._of().end()
        except GoneError as error:
            raise UpstreamError(str(error)) from None

    async def response(self, on_continue: Callable[[], Awaitable[None]]) -> ResponseHead:
        stream = self._of()
        while True:
            while stream.head is None:
                if stream.error is not None:
                    raise self._no_answer(stream.error)
                if stream.ended:
                    raise UpstreamError("the upstream's answer has no head")
                await stream.wait()
            head, stream.head = stream.head, None
            try:
                status = h2_heads.status(head)
                if status >= 200:
                    return self._understood(status, head)
            except UntrustedInputError as error:
                raise UpstreamError(f"the upstream's answer is bad HTTP/2: {error}") from None
            if status == 100:
                await on_continue()

    async def read(self) -> bytes:
        try:
            return await self._of().read()
        except GoneError as error:
            raise UpstreamError(str(error)) from None

    def switch(self) -> RawStream:
        raise UpstreamError("HTTP/2 does not switch protocols")

    def release(self) -> None:
        if self._done:
            return
        stream = self._stream
        if stream is None or not (stream.ended and stream.sent):
            self.abort()
            return
        self._done = True
        stream.forget()
        self._connection.settled()

    def abort(self) -> None:
        if self._done:
            return
        self._done = True
        if self._stream is not None:
            self._stream.reset(h2.errors.ErrorCodes.CANCEL)
        self._connection.settled()

    def _of(self) -> Stream:
        if self._stream is None:
            raise UpstreamError("the request has not begun")
        return self._stream

    def _no_answer(self, error: GoneError) -> Exception:
        """What the upstream says it has not acted on may go again; else only what changes nothing there."""
        if error.refused or (error.closed and self._method in _REPEATABLE):
            return StaleError()
        return UpstreamError(str(error))

    def _understood(self, status: int, head: Headers) -> ResponseHead:
        declared = h2_heads.length(head)
        stream = self._of()
        bodiless = self._method == "HEAD" or status in (204, 304)
        over = stream.ended and not stream.at_hand_parts and not stream.trailers
        return ResponseHead(
            status=status,
            headers=h2_heads.of_response(head),
            length=0 if bodiless or over else declared,
            declared_length=declared,
        )
