"""HTTP/1.1 towards an upstream: one request on a connection that may have served others.

Rule 1: a response's head has passed `strict.py`; what has two readings is an error of the upstream.
Rule 2: the connection goes back for others only if both messages were whole and nothing is left unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.http.body import HOP_BY_HOP, Body, chunk, last_chunk, lines
from cloister.gateway.http.raw import WireStream
from cloister.gateway.http.streams import StaleError
from cloister.gateway.upstream import UpstreamError
from cloister.gateway.wire import read_head
from cloister.messages import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.gateway.wire import Wire

_INTERIM_LIMIT = 16
_NO_ANSWER = "the upstream closed the connection without an answer"
_BROKEN = "the upstream's connection broke"


class H1Upstream:
    """See `streams.Upstream`. `on_release` gets the wire back if it can be used again."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_chunked",
        "_done",
        "_held",
        "_keep_alive",
        "_method",
        "_on_release",
        "_request_whole",
        "_reused",
        "_wire",
        "address",
    )

    def __init__(self, wire: Wire, *, address: str, reused: bool, on_release: Callable[[Wire], None]) -> None:
        self._wire = wire
        self.address = address
        self._reused = reused
        self._on_release = on_release
        self._body: Body | None = None
        self._held = b""
        self._chunked = False
        self._bodiless = False
        self._request_whole = False
        self._keep_alive = False
        self._method = ""
        self._done = False

    @property
    def trailers(self) -> Headers:
        return self._body.trailers if self._body is not None else ()

    @property
    def at_hand(self) -> bool:
        return self._body is None or self._body.at_hand

    async def send_head(self, request: RequestHead, *, ended: bool) -> None:
        self._method = request.method
        self._chunked = request.length is None and not ended
        self._bodiless = ended
        framing = b""
        if self._chunked:
            framing = b"transfer-encoding: chunked\r\n"
        elif request.length or request.declared_length:
            framing = b"content-length: %d\r\n" % (request.length or 0)
        if request.websocket_key is not None:
            framing += b"connection: Upgrade\r\nupgrade: websocket\r\n"
        self._held = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            request.method.encode(),
            request.target.encode("latin-1"),
            request.untrusted_authority.encode(),
            lines(tuple(pair for pair in request.headers if pair[0] != b"te")),  # of HTTP/2, and of one hop
            framing,
        )
        if ended:
            self._request_whole = True
            await self._flush()

    async def write(self, data: bytes) -> None:
        framed = chunk(data) if self._chunked else data
        if self._held:
            framed, self._held = self._held + framed, b""
        await self._send(framed)

    async def finish(self, trailers: Headers = ()) -> None:  # noqa: ARG002
        if self._chunked:
            self._held += last_chunk(
                ()
            )  # few servers know trailers of HTTP/1.1, and some take them for headers
        await self._flush()
        self._request_whole = True

    async def response(self, on_continue: Callable[[], Awaitable[None]]) -> ResponseHead:
        try:
            await self._flush()
            for _ in range(_INTERIM_LIMIT):
                untrusted = await read_head(self._wire, limit_bytes=strict.HEAD_LIMIT_BYTES)
                if untrusted is None:
                    raise self._no_answer()
                head = strict.response_head(untrusted)
                if head.status == 100:
                    await on_continue()
                elif head.status >= 200 or head.status == 101:
                    return self._understood(head)
        except OSError:
            raise self._no_answer() from None
        except UntrustedInputError as error:
            raise UpstreamError(f"the upstream's answer is not strict HTTP/1.1: {error}") from None
        raise UpstreamError("the upstream's answer is not strict HTTP/1.1: too many interim responses")

    async def read(self) -> bytes:
        if self._body is None:
            return b""
        try:
            return await self._body.read()
        except UntrustedInputError as error:
            raise UpstreamError(f"the upstream's answer is not strict HTTP/1.1: {error}") from None
        except OSError:
            raise UpstreamError(_BROKEN) from None

    def switch(self) -> WireStream:
        self._done = True
        return WireStream(self._wire)

    def release(self) -> None:
        if self._done:
            return
        self._done = True
        whole = self._request_whole and self._body is not None and self._body.ended
        if whole and self._keep_alive and not self._wire.buffer:
            self._on_release(self._wire)
        else:
            self._wire.close()

    def abort(self) -> None:
        if not self._done:
            self._done = True
            self._wire.reset()

    async def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        try:
            await self._wire.send(data)
        except OSError:
            raise self._no_answer() from None

    def _no_answer(self) -> Exception:
        """A reused connection that went before it answered a request without a body may be replaced."""
        if self._reused and self._bodiless:
            return StaleError()
        return UpstreamError(_NO_ANSWER)

    def _understood(self, head: strict.ResponseHead) -> ResponseHead:
        bodiless = self._method == "HEAD" or head.status in (101, 204, 304)
        declared = head.length if head.length is not None and head.length >= 0 else None
        until_end = not bodiless and head.length == -1
        length = 0 if bodiless else declared
        named = head.connection
        self._body = Body(self._wire, length, until_end=until_end)
        self._keep_alive = head.minor_version > 0 and b"close" not in named and not until_end
        headers = tuple(pair for pair in head.headers if pair[0] not in HOP_BY_HOP and pair[0] not in named)
        if head.status == 101:
            headers += tuple((b"upgrade", value) for value in head.values(b"upgrade"))
        return ResponseHead(status=head.status, headers=headers, length=length, declared_length=declared)
