"""HTTP/2 towards the sandbox: the requests of one connection, each in a task of its own.

Rule 1: a request is understood strictly: pseudo-headers once and first (h2's check), one authority, no header of a
        connection; what is not is reset, and never reaches a handler.
Rule 2: at most STREAMS_LIMIT requests at a time; a client that opens and resets them is counted (`h2_streams.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import h2.config
import h2.errors
import h2.events
import h2.settings

from cloister.errors import UntrustedInputError
from cloister.gateway.http import h2_streams
from cloister.gateway.http.body import HOP_BY_HOP
from cloister.gateway.http.h2_streams import STREAMS_LIMIT, Connection, GoneError, Stream
from cloister.gateway.strict import Form
from cloister.messages import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from cloister.gateway.http.streams import Handler, RawStream
    from cloister.gateway.services import Deadlines
    from cloister.gateway.wire import Wire

_CONFIG = h2.config.H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_NO_BODY = frozenset({204, 304})


async def serve(wire: Wire, handler: Handler, *, deadlines: Deadlines) -> None:
    """Serve requests until either side ends, or nothing has happened for `idle_s`."""
    await _Server(wire, handler, deadlines).run()


class _Server:
    def __init__(self, wire: Wire, handler: Handler, deadlines: Deadlines) -> None:
        self._connection = Connection(wire, _CONFIG)
        self._handler = handler
        self._deadlines = deadlines
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    async def run(self) -> None:
        connection = self._connection
        connection.protocol.initiate_connection()
        try:
            await connection.start({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_LIMIT})
            while not connection.closing or self._tasks:
                try:
                    async with asyncio.timeout(None if self._tasks else self._deadlines.idle_s):
                        events = await connection.receive()
                except TimeoutError:
                    if self._tasks:
                        continue
                    connection.protocol.close_connection()
                    await connection.flush()
                    return
                if events is None:
                    return
                for event in events:
                    if isinstance(event, h2.events.RequestReceived):
                        self._begin(event)
                    connection.dispatch(event)
                await connection.flush()
        except (UntrustedInputError, GoneError):
            return
        finally:
            connection.fail(GoneError("the client's connection has ended"))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._fault is not None:
                raise self._fault

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream = Stream(self._connection, event.stream_id or 0)
        self._connection.streams[stream.id] = stream
        try:
            head = request_head(list(event.headers or []), ended=event.stream_ended is not None)
        except UntrustedInputError:
            stream.reset(h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        task = asyncio.get_running_loop().create_task(self._serve(H2Downstream(stream, head)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, downstream: H2Downstream) -> None:
        try:
            await self._handler(downstream)
            downstream.settle()
        except (OSError, GoneError, TimeoutError):
            downstream.abort()
        except asyncio.CancelledError:
            downstream.abort()
            raise
        except (
            Exception
        ) as error:  # a bug of ours: this request ends, and it is written down with the connection
            downstream.abort()
            self._fault = error


class H2Downstream:
    """See `streams.Downstream`."""

    __slots__ = ("_continued", "_held", "_responded", "_stream", "answered", "form", "keep_alive", "request")

    def __init__(self, stream: Stream, request: RequestHead) -> None:
        self._stream = stream
        self.request = request
        self.form = Form.ASTERISK if request.path == "*" else Form.ORIGIN
        self.keep_alive = True
        self.answered = False
        self._continued = not request.expects_continue
        self._responded = False

    @property
    def trailers(self) -> Headers:
        return self._stream.trailers

    async def read(self) -> bytes:
        try:
            return await self._stream.read()
        except GoneError as error:
            raise ConnectionResetError(str(error)) from None

    async def send_continue(self) -> None:
        if not self._continued and not self.answered:
            self._continued = True
            await self._headers(((b":status", b"100"),), ended=False)

    async def send_head(self, head: ResponseHead, *, ended: bool) -> None:
        self.answered = True
        length = head.declared_length
        if length is None and head.length is not None and head.status not in _NO_BODY:
            length = head.length if not ended or self.request.method != "HEAD" else None
        framing = ((b"content-length", b"%d" % length),) if length is not None and head.status != 204 else ()
        ended = ended or self.request.method == "HEAD" or head.status in _NO_BODY
        self._responded = ended
        await self._headers(((b":status", b"%d" % head.status), *head.headers, *framing), ended=ended)

    async def flush(self) -> None:
        return  # nothing is held back

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except GoneError as error:
            raise ConnectionResetError(str(error)) from None

    async def finish(self, trailers: Headers = ()) -> None:
        self._responded = True
        try:
            if trailers:
                await self._stream.send_headers(trailers, ended=True)
            else:
                await self._stream.end()
        except GoneError as error:
            raise ConnectionResetError(str(error)) from None

    def abort(self) -> None:
        self._stream.reset(h2.errors.ErrorCodes.INTERNAL_ERROR)

    async def switch(self, accept: bytes, headers: Headers) -> RawStream:  # noqa: ARG002
        raise UntrustedInputError("HTTP/2 does not switch protocols")

    def settle(self) -> None:
        """After the handler: an unread rest of the request is not wanted any more (RFC 9113 section 8.1)."""
        if not self._responded:
            self.abort()
        elif self._stream.ended:
            self._stream.forget()
        else:
            self._stream.reset(h2.errors.ErrorCodes.NO_ERROR)

    async def _headers(self, headers: Headers, *, ended: bool) -> None:
        try:
            await self._stream.send_headers(headers, ended=ended)
        except GoneError as error:
            raise ConnectionResetError(str(error)) from None


def request_head(untrusted: list[tuple[bytes, bytes]], *, ended: bool) -> RequestHead:
    """A request as `h2` gives it. UntrustedInputError if it has two readings."""
    headers = h2_streams.checked(untrusted)
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    hosts = [value for name, value in headers if name == b"host"]
    authority = pseudo.get(b":authority", hosts[0] if hosts else b"")
    if any(host != authority for host in hosts):
        raise UntrustedInputError("the Host header and :authority differ")
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if method != b"CONNECT" and pseudo.get(b":scheme") != b"https":
        raise UntrustedInputError("another scheme than https")
    if b":protocol" in pseudo or not method.replace(b"-", b"").isalnum() or len(method) > 32:
        raise UntrustedInputError("bad HTTP method")
    if method != b"CONNECT" and not target.startswith(b"/") and (target, method) != (b"*", b"OPTIONS"):
        raise UntrustedInputError("the path does not begin with /")
    if any(byte <= 0x20 or byte >= 0x7F for byte in target + authority) or b"#" in target:
        raise UntrustedInputError("a byte outside of printable ASCII, or a fragment, in the path")
    path, mark, query = target.decode().partition("?")
    declared = h2_streams.length(headers)
    if ended and declared:
        raise UntrustedInputError("the body is shorter than declared")
    return RequestHead(
        method=method.decode(),
        untrusted_authority=authority.decode(),
        path=path,
        query=query if mark else None,
        headers=_kept(headers),
        length=0 if ended else declared,
        expects_continue=any(pair == (b"expect", b"100-continue") for pair in headers) and not ended,
        declared_length=declared is not None,
    )


def _kept(headers: Headers) -> Headers:
    """Without pseudo-headers and framing; cookies as one (RFC 9113 section 8.2.3)."""
    kept = [
        pair for pair in headers if pair[0][:1] != b":" and pair[0] not in HOP_BY_HOP and pair[0] != b"cookie"
    ]
    if (b"te", b"trailers") in headers:
        kept.append((b"te", b"trailers"))
    cookies = [value for name, value in headers if name == b"cookie"]
    if cookies:
        kept.append((b"cookie", b"; ".join(cookies)))
    return tuple(kept)
