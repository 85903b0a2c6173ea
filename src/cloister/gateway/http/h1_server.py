"""HTTP/1.1 towards the sandbox: requests of one connection, one after the other.

Rule 1: a head has passed `strict.py` before it is looked at; what cannot be judged is answered and ends the connection.
Rule 2: a request's body that its handler left is read on only a little; otherwise the connection ends, so that nothing
        of a refused request can be taken for the next one.
Rule 3: a response that cannot be framed for its client (HTTP/1.0) ends with the connection.
Rule 4: a handler is cancelled when nobody waits for its response: at once if the connection is broken, and after
        `ended_s` without a byte of an answer if the client has ended its stream (docs/adr/0056).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.http.body import HOP_BY_HOP, Body, chunk, last_chunk, lines
from cloister.gateway.http.phrases import phrase
from cloister.gateway.http.raw import WireStream
from cloister.gateway.wire import read_head
from cloister.messages import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.gateway.departures import Departures
    from cloister.gateway.http.streams import Handler
    from cloister.gateway.services import Deadlines
    from cloister.gateway.wire import Wire

_DRAIN_BYTES = 64 * 1024
_NO_BODY = frozenset({204, 304})


async def serve(
    wire: Wire,
    handler: Handler,
    *,
    deadlines: Deadlines,
    departures: Departures,
    on_bad_request: Callable[[str, int], Awaitable[bytes]],
    first: bytes | None = None,
) -> None:
    """Serve requests until either side ends. `first` is a head that has been read already.

    `on_bad_request` gives the whole answer for a head that is refused, from a reason and a status.
    """
    client = _Client(deadlines.ended_s)
    try:
        with departures.watched(wire.descriptor, client.departs):
            async with client.limit:
                await _requests(
                    wire, handler, client, deadlines=deadlines, on_bad_request=on_bad_request, first=first
                )
    except TimeoutError:
        if not client.left:
            raise


async def _requests(
    wire: Wire,
    handler: Handler,
    client: _Client,
    *,
    deadlines: Deadlines,
    on_bad_request: Callable[[str, int], Awaitable[bytes]],
    first: bytes | None,
) -> None:
    untrusted, idle = first, False
    while True:
        try:
            untrusted = untrusted or await _next_head(wire, deadlines, idle=idle)
            if untrusted is None:
                return
            head = strict.request_head(untrusted)
        except TimeoutError:
            if wire.buffer:
                await _say(wire, await on_bad_request("the HTTP head did not come in time", 408), deadlines)
            return
        except UntrustedInputError as error:
            await _say(wire, await on_bad_request(f"bad request: {error}", 400), deadlines)
            return
        stream = H1Downstream(wire, head, client)
        try:
            client.begins()
            await handler(stream)
            client.is_served()
            if not await stream.settle(deadlines):
                return
        except BaseException:
            stream.abort()
            raise
        untrusted, idle = None, True


class _Client:
    """Whether the client of a connection still waits for the response in hand. `limit`: of all that is done for it."""

    __slots__ = ("_ended", "_ended_s", "_gone", "_taking", "_waiting", "limit")

    def __init__(self, ended_s: float) -> None:
        self._ended_s = ended_s
        self._ended = False  # it sends no more: it may be half closed, or closed
        self._gone = False  # the connection is broken
        self._taking = False  # a part of the response is on its way to it: that it takes it is its own affair
        self._waiting = False  # for a handler
        self.limit = asyncio.timeout(None)

    @property
    def left(self) -> bool:
        return self.limit.expired()

    def departs(self, gone: bool) -> None:
        self._ended = True
        self._gone = self._gone or gone
        self._shorten()

    def begins(self) -> None:
        self._waiting = True
        self.moved()

    def is_served(self) -> None:
        """From here on what it does is its own affair; and once we end our side too, it looks as if it was broken."""
        self._waiting = False
        if self._ended and not self.limit.expired():
            self.limit.reschedule(None)

    async def send(self, wire: Wire, data: bytes) -> None:
        self._taking = True
        self.moved()
        try:
            await wire.send(data)
        finally:
            self._taking = False
            self.moved()

    def moved(self) -> None:
        """Something comes or goes: the time begins again."""
        if self._ended:
            self._shorten()

    def _shorten(self) -> None:
        if not self._waiting or self.limit.expired():
            return
        if self._taking:  # if it is gone, that will fail
            self.limit.reschedule(None)
        else:
            now = asyncio.get_running_loop().time()
            self.limit.reschedule(now if self._gone else now + self._ended_s)


class H1Downstream:
    """A request of HTTP/1.x. See `streams.Downstream`. `keep_alive` may be set to False before the response's head."""

    __slots__ = (
        "_body",
        "_chunked",
        "_client",
        "_continued",
        "_gone",
        "_held",
        "_minor",
        "_responded",
        "_wire",
        "answered",
        "form",
        "keep_alive",
        "request",
    )
    h2 = False

    def __init__(self, wire: Wire, head: strict.RequestHead, client: _Client) -> None:
        self._wire = wire
        self._client = client
        self.request = _request(head)
        self.form = head.form
        self._minor = head.minor_version
        self._body = Body(wire, head.length)
        self.keep_alive = head.minor_version > 0 and not head.closes
        self.answered = False
        self._continued = not self.request.expects_continue
        self._held = b""
        self._chunked = False
        self._responded = False  # whole
        self._gone = False  # aborted, or the bytes are somebody else's

    @property
    def trailers(self) -> Headers:
        return self._body.trailers

    @property
    def left(self) -> bool:
        return self._client.left

    async def read(self) -> bytes:
        part = await self._body.read()
        self._client.moved()
        return part

    async def send_continue(self) -> None:
        if not self._continued and not self.answered:
            self._continued = True
            await self._client.send(self._wire, b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send_head(self, head: ResponseHead, *, ended: bool) -> None:
        bodiless = self.request.method == "HEAD" or head.status in _NO_BODY
        framing = b""
        if bodiless:
            if head.declared_length is not None and head.status != 204:
                framing = b"content-length: %d\r\n" % head.declared_length
        elif head.length is not None or ended:
            framing = b"content-length: %d\r\n" % (head.length or 0)
        elif self._minor:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self.keep_alive = False
        if not self._body.ended and not self._continued:
            self.keep_alive = False  # the client may or may not send the body that it announced
        connection = b"" if self.keep_alive else b"connection: close\r\n"
        words = (head.phrase or phrase(head.status)).encode("ascii", "replace")
        self._held = b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (
            head.status,
            words,
            lines(head.headers),
            framing,
            connection,
        )
        self._responded = ended or bodiless
        if self._responded:
            await self.flush()

    async def flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self.answered = True
            await self._client.send(self._wire, data)

    async def write(self, data: bytes) -> None:
        self.answered = True
        framed = chunk(data) if self._chunked else data
        if self._held:
            framed, self._held = self._held + framed, b""
        await self._client.send(self._wire, framed)

    async def finish(self, trailers: Headers = ()) -> None:
        if not self.request.values(b"te"):  # only to who says that it takes them (RFC 9110 section 6.5.1)
            trailers = ()
        end = last_chunk(trailers) if self._chunked else b""
        if self._held or end:
            data, self._held = self._held + end, b""
            self.answered = True
            await self._client.send(self._wire, data)
        self._responded = True

    def abort(self) -> None:
        self._gone = True
        self._wire.reset()

    async def switch(self, accept: bytes, headers: Headers) -> WireStream:
        head = (
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-accept: %b\r\n%b\r\n" % (accept, lines(headers))
        )
        self.answered = self._gone = True
        await self._client.send(self._wire, head)
        return WireStream(self._wire)

    async def settle(self, deadlines: Deadlines) -> bool:
        """After the handler: whether the connection can serve another request."""
        if self._gone:
            return False
        if (
            not self._responded
        ):  # a handler that ended without an answer is a bug; the client must not wait for ever
            self._wire.close()
            return False
        if self.keep_alive and await self._drained(deadlines):
            return True
        await self._wire.finish()
        return False

    async def _drained(self, deadlines: Deadlines) -> bool:
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(deadlines.head_s):
                while not self._body.ended and left > 0:
                    left -= len(await self._body.read())
        except (UntrustedInputError, OSError, TimeoutError):
            return False
        return self._body.ended


def _request(head: strict.RequestHead) -> RequestHead:
    """The message without its framing."""
    named = head.connection
    kept = [pair for pair in head.headers if pair[0] not in HOP_BY_HOP and pair[0] not in named]
    if b"trailers" in head.tokens(b"te"):
        kept.append((b"te", b"trailers"))
    return RequestHead(
        method=head.method,
        untrusted_authority=head.untrusted_authority,
        path=head.path,
        query=head.query,
        headers=tuple(kept),
        length=head.length,
        expects_continue=head.minor_version > 0 and bool(head.values(b"expect")) and head.length != 0,
        websocket_key=_websocket_key(head),
        declared_length=head.declared_length,
    )


def _websocket_key(head: strict.RequestHead) -> bytes | None:
    """The key of a valid WebSocket opening (RFC 6455 section 4.2.1), or None if it is not one."""
    keys = head.values(b"sec-websocket-key")
    if len(keys) != 1 or head.method != "GET" or head.length != 0 or not head.minor_version:
        return None
    if b"upgrade" not in head.connection or head.tokens(b"upgrade") != {b"websocket"}:
        return None
    if head.values(b"sec-websocket-version") != [b"13"]:
        return None
    try:
        valid = len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        return None
    return keys[0] if valid else None


async def _next_head(wire: Wire, deadlines: Deadlines, *, idle: bool) -> bytes | None:
    """The next head. Between two requests a client may rest for longer than within a head."""
    if idle and not wire.buffer:
        async with asyncio.timeout(deadlines.idle_s):
            if not await wire.more():
                return None
        if wire.buffer.endswith(b"\r\n\r\n"):  # whole: no wait, so no deadline
            return await read_head(wire, limit_bytes=strict.HEAD_LIMIT_BYTES)
    async with asyncio.timeout(deadlines.head_s):
        return await read_head(wire, limit_bytes=strict.HEAD_LIMIT_BYTES)


async def _say(wire: Wire, answer: bytes, deadlines: Deadlines) -> None:
    try:
        async with asyncio.timeout(deadlines.head_s):
            await wire.send(answer)
            await wire.finish()
    except (OSError, TimeoutError):
        pass  # it is written down; the client did not want to read it
