"""HTTP/2 towards the sandbox: the requests of one connection, each in a task of its own.

Rule 1: a request is understood strictly (`h2_heads.py`); one that is not is told so and never reaches a handler.
Rule 2: at most STREAMS_LIMIT handlers at a time. One whose client resets its stream is cancelled: opening and resetting
        streams must not leave work behind (CVE-2023-44487).
Rule 3: a connection without requests ends after `idle_s`, whatever else comes on it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import h2.config
import h2.errors
import h2.events
import h2.settings

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.http import h2_heads
from cloister.gateway.http.body import HOP_BY_HOP
from cloister.gateway.http.h2_connection import STREAMS_LIMIT, Connection
from cloister.gateway.http.h2_streams import GoneError, Stream
from cloister.messages import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.gateway.http.streams import Handler, RawStream
    from cloister.gateway.services import Deadlines
    from cloister.gateway.wire import Wire

    OnBadRequest = Callable[[str, int], Awaitable[bytes]]

_CONFIG = h2.config.H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_NO_BODY = frozenset({204, 304})


async def serve(
    wire: Wire, handler: Handler, *, deadlines: Deadlines, on_bad_request: OnBadRequest | None = None
) -> None:
    """Serve requests until either side ends, or none has been open for `idle_s`.

    `on_bad_request` is told what was refused; what it returns (as for HTTP/1.1) is shown where a stream can show it.
    """
    await _Server(wire, handler, deadlines, on_bad_request).run()


class _Server:
    def __init__(
        self, wire: Wire, handler: Handler, deadlines: Deadlines, on_bad_request: OnBadRequest | None
    ) -> None:
        self._connection = Connection(wire, _CONFIG)
        self._handler = handler
        self._deadlines = deadlines
        self._on_bad_request = on_bad_request
        self._tasks: dict[int, tuple[asyncio.Task[None], H2Downstream | None]] = {}
        self._idle: asyncio.Timeout | None = None
        self._fault: Exception | None = None

    async def run(self) -> None:
        connection = self._connection
        connection.start({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_LIMIT})
        try:
            async with asyncio.timeout(self._deadlines.idle_s) as self._idle:
                await self._receive()
            self._leave()
        except TimeoutError:
            connection.protocol.close_connection()
            await self._goodbye()
        except UntrustedInputError as error:
            await self._tell(str(error))
            await self._goodbye()
        except (OSError, GoneError):
            self._leave()
        finally:
            self._idle = None
            connection.fail(GoneError("the client's connection has ended"))
            tasks = [task for task, _ in self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            connection.stop()
        if self._fault is not None:
            raise self._fault

    async def _receive(self) -> None:
        connection = self._connection
        while (events := await connection.receive()) is not None:
            for event in events:
                match event:
                    case h2.events.RequestReceived():
                        self._begin(event)
                    case h2.events.StreamReset(stream_id=stream_id):
                        self._cancel(stream_id or 0)
                    case _:
                        pass
                connection.dispatch(event)
            if connection.closing and not self._tasks:
                return

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream = Stream(self._connection, event.stream_id or 0)
        if len(self._tasks) >= STREAMS_LIMIT:
            stream.reset(h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self._connection.streams[stream.id] = stream
        downstream = None
        try:
            head = h2_heads.request_head(list(event.headers or []), ended=event.stream_ended is not None)
        except UntrustedInputError as error:
            work = self._refuse(stream, str(error))
        else:
            downstream = H2Downstream(stream, head)
            work = self._serve(downstream)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[stream.id] = (task, downstream)
        task.add_done_callback(lambda _: self._ended(stream.id))
        if self._idle is not None:
            self._idle.reschedule(None)

    def _ended(self, stream_id: int) -> None:
        del self._tasks[stream_id]
        if not self._tasks and self._idle is not None and not self._idle.expired():
            left = 0 if self._connection.closing else self._deadlines.idle_s
            self._idle.reschedule(asyncio.get_running_loop().time() + left)

    def _cancel(self, stream_id: int) -> None:
        """The client has reset a stream. If its response was whole, let the handler write that down."""
        task, downstream = self._tasks.get(stream_id, (None, None))
        if downstream is not None:
            downstream.left = not downstream.responded
        if task is not None and (downstream is None or not downstream.responded):
            task.cancel()

    def _leave(self) -> None:
        """The client has gone."""
        for _, downstream in self._tasks.values():
            if downstream is not None:
                downstream.left = True

    async def _serve(self, downstream: H2Downstream) -> None:
        try:
            await self._handler(downstream)
            downstream.settle()
        except (OSError, UntrustedInputError):
            downstream.abort()
        except asyncio.CancelledError:
            downstream.abort()
            raise
        except Exception as error:  # a bug of ours ends this request, and is told at the connection's end
            downstream.abort()
            self._fault = error

    async def _refuse(self, stream: Stream, reason: str) -> None:
        """Answer what is no request (RFC 9113 section 8.1.1), and read no more of it."""
        try:
            answer = await self._tell(reason)
            if answer:
                head = strict.response_head(answer[: answer.index(b"\r\n\r\n") + 4])
                kept = tuple(pair for pair in head.headers if pair[0] not in HOP_BY_HOP)
                await stream.send_headers(((b":status", b"%d" % head.status), *kept), ended=False)
                await stream.write(answer.partition(b"\r\n\r\n")[2])
                await stream.end()
        except GoneError:
            pass
        finally:
            stream.reset(h2.errors.ErrorCodes.PROTOCOL_ERROR)

    async def _tell(self, reason: str) -> bytes:
        if self._on_bad_request is None:
            return b""
        return await self._on_bad_request(f"bad request: {reason}", 400)

    async def _goodbye(self) -> None:
        """Let the client read why the connection ends."""
        await self._connection.finish()
        await self._connection.wire.finish()


class H2Downstream:
    """See `streams.Downstream`. `responded`: our response is whole."""

    __slots__ = (
        "_continued",
        "_stream",
        "answered",
        "form",
        "keep_alive",
        "left",
        "request",
        "responded",
    )
    h2 = True

    def __init__(self, stream: Stream, request: RequestHead) -> None:
        self._stream = stream
        self.request = request
        self.form = strict.Form.ASTERISK if request.path == "*" else strict.Form.ORIGIN
        self.keep_alive = True
        self.answered = False
        self.responded = False
        self.left = False
        self._continued = not request.expects_continue

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
        self.responded = ended
        await self._headers(((b":status", b"%d" % head.status), *head.headers, *framing), ended=ended)

    async def flush(self) -> None:
        return  # the connection's writer sends what is there at the loop's next turn

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except GoneError as error:
            raise ConnectionResetError(str(error)) from None

    async def finish(self, trailers: Headers = ()) -> None:
        self.responded = True
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
        if not self.responded:
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
