"""Forward one judged HTTP/1.1 request and its response. Framing on both sides is h11's.

Rule 1: nothing is passed on as raw bytes: both heads are written anew, without hop-by-hop headers and
        without those that `Connection` names; trailers are dropped.
Rule 2: bodies stream in both directions; neither side is read faster than the other takes.
Rule 3: a response is framed as strictly as a request; what is not, is a 502 and both connections end.
Rule 4: a switch of protocols only to WebSocket, only if asked for, and only with the right accept key
        (RFC 6455).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import socket
from dataclasses import dataclass

import h11

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.judge import GrantedRequest
from cloister.gateway.services import Deadlines
from cloister.gateway.upstream import Upstream, UpstreamError
from cloister.gateway.wire import SocketWire, read_head, take

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade expect content-length".split()
)
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3; nothing secret
_INTERIM_LIMIT = 16
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class StaleUpstreamError(Exception):
    """A kept-alive upstream had closed before it saw the request; it may be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an exchange ended. `switched`: bytes that were read too far (for the upstream, for the client).

    `fault` says what cut the response short, if anything did.
    """

    status: int
    address: str
    sent_bytes: int
    received_bytes: int
    reuse_client: bool
    reuse_upstream: bool
    switched: tuple[bytes, bytes] | None = None
    fault: str | None = None


class Exchange:
    """One request of one client. `answered` is True once a byte of a response has gone to the client, `left` once
    a byte of the request may have gone upstream; the counts are of the bodies.
    """

    def __init__(
        self, deadlines: Deadlines, client: SocketWire, head: strict.RequestHead, granted: GrantedRequest
    ) -> None:
        self.answered = False
        self.left = False
        self.sent_bytes = 0
        self.received_bytes = 0
        self._deadlines = deadlines
        self._client = client
        self._head = head
        self._granted = granted
        self._websocket_key = _websocket_key(head)
        self._fault: str | None = None
        self._begin()

    async def run(self, wire: SocketWire, upstream: Upstream, *, reused: bool) -> Outcome:
        """Forward, stream, and say how it ended. UpstreamError if no response could be begun."""
        self._begin()
        may_resend = reused and self._head.method in _SAFE and self._head.length == 0
        upload: asyncio.Task[None] | None = None
        try:
            await self._send_head(wire)
            if self._head.length == 0:
                await self._upload(wire)
            else:
                upload = asyncio.create_task(self._upload(wire))
            head = await self._response(wire)
            if head.status == 101:
                return await self._switch(wire, upstream, head)
            fault = await self._download(wire, head)
        except (ConnectionError, _UpstreamClosedError) as error:
            if may_resend and not self.answered:
                raise StaleUpstreamError from error
            raise UpstreamError(
                self._fault or "the upstream closed the connection without an answer"
            ) from None
        except TimeoutError:
            raise UpstreamError("the upstream did not answer in time", status=504) from None
        except (UntrustedInputError, h11.RemoteProtocolError) as error:
            raise UpstreamError(f"the upstream's answer is not strict HTTP/1.1: {error}") from None
        finally:
            if upload is not None:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
        return self._outcome(upstream, head.status, fault)

    def _begin(self) -> None:
        """Fresh framing. Towards the client, h11 gets the request as we understood it, not as it was sent."""
        self._down = h11.Connection(h11.SERVER, max_incomplete_event_size=strict.HEAD_LIMIT_BYTES)
        self._up = h11.Connection(h11.CLIENT, max_incomplete_event_size=strict.HEAD_LIMIT_BYTES)
        self._down.receive_data(_client_head(self._head, websocket=self._websocket_key is not None))
        self._down.next_event()

    async def _send_head(self, wire: SocketWire) -> None:
        host = self._granted.host.name
        port = self._granted.port
        headers = [(b"Host", (host if port == 80 else f"{host}:{port}").encode())]
        headers += _end_to_end(self._head.headers, self._head.tokens(b"connection") | {b"host"})
        if self._head.length is None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif self._head.length or self._head.values(b"content-length"):
            headers.append((b"Content-Length", str(self._head.length).encode()))
        if self._websocket_key is not None:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        target = self._head.path if self._head.query is None else f"{self._head.path}?{self._head.query}"
        data = self._up.send(h11.Request(method=self._head.method, target=target, headers=headers))
        self.left = True
        async with asyncio.timeout(self._deadlines.idle_s):
            await wire.send(data or b"")

    async def _upload(self, wire: SocketWire) -> None:
        """The request's body. An upstream that stops reading may still answer; its errors end the upload.

        A client that breaks off ends the exchange: half a body must not look like a whole one.
        """
        if b"100-continue" in self._head.tokens(b"expect") and self._head.minor_version:
            await self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            try:
                event = self._down.next_event()
            except h11.RemoteProtocolError:
                self._break_off(wire, "the request's body is not framed as its head says")
                return
            if event is h11.NEED_DATA:
                if not await self._more_of_the_body():
                    self._break_off(wire, "the client broke off within the request's body")
                    return
                self._down.receive_data(take(self._client))
            elif isinstance(event, h11.Data):
                self.sent_bytes += len(event.data)
                async with asyncio.timeout(self._deadlines.idle_s):
                    await wire.send(self._up.send(h11.Data(data=event.data)) or b"")
            elif isinstance(event, h11.EndOfMessage):
                await wire.send(self._up.send(h11.EndOfMessage()) or b"")
                return
            else:
                return

    def _break_off(self, wire: SocketWire, fault: str) -> None:
        self._fault = fault
        with contextlib.suppress(OSError):
            wire.sock.shutdown(socket.SHUT_RDWR)  # wakes the download

    async def _more_of_the_body(self) -> bool:
        try:
            async with asyncio.timeout(self._deadlines.idle_s):
                return bool(self._client.buffer) or await self._client.more()
        except (OSError, TimeoutError):
            return False

    async def _response(self, wire: SocketWire) -> strict.ResponseHead:
        """The final response head (or an accepted 101); interim ones are dropped."""
        for _ in range(_INTERIM_LIMIT):
            async with asyncio.timeout(self._deadlines.response_s):
                untrusted = await read_head(wire, limit_bytes=strict.HEAD_LIMIT_BYTES)
            if untrusted is None:
                raise _UpstreamClosedError
            head = strict.response_head(untrusted)
            if head.status == 101:
                self._check_switch(head)
                return head
            self._up.receive_data(untrusted)
            self._up.next_event()
            if head.status >= 200:
                return head
        raise UntrustedInputError("too many interim responses")

    async def _download(self, wire: SocketWire, head: strict.ResponseHead) -> str | None:
        """The response, as far as it comes. Returns what cut it short: the client then sees a broken body."""
        headers = _end_to_end(head.headers, head.tokens(b"connection"))
        headers += [(b"Content-Length", value) for value in head.values(b"content-length")]
        response = h11.Response(status_code=head.status, reason=head.reason, headers=headers)
        data = self._down.send(response) or b""
        if wire.buffer:  # to h11, no bytes mean the end of the stream
            self._up.receive_data(take(wire))
        try:
            while True:
                event = self._up.next_event()
                if isinstance(event, h11.Data):
                    self.received_bytes += len(event.data)
                    data += self._down.send(h11.Data(data=event.data)) or b""
                elif isinstance(event, h11.EndOfMessage):
                    data += self._down.send(h11.EndOfMessage()) or b""
                    await self._to_client(data)
                    return None
                if event is h11.NEED_DATA or len(data) > _WRITE_AT_BYTES:
                    await self._to_client(data)
                    data = b""
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(self._deadlines.response_s):
                        await wire.more()
                    self._up.receive_data(take(wire))
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            return self._fault or f"cut short: {type(error).__name__}"

    async def _to_client(self, data: bytes) -> None:
        if data:
            self.answered = True
            async with asyncio.timeout(self._deadlines.response_s):
                await self._client.send(data)

    def _outcome(self, upstream: Upstream, status: int, fault: str | None) -> Outcome:
        over_read = self._down.trailing_data[0]
        self._client.buffer[:0] = over_read
        clean = fault is None
        return Outcome(
            status=status,
            address=upstream.address,
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
            reuse_client=clean and self._down.our_state is h11.DONE and self._down.their_state is h11.DONE,
            reuse_upstream=clean
            and self._up.our_state is h11.DONE
            and self._up.their_state is h11.DONE
            and not self._up.trailing_data[0],
            fault=fault,
        )

    def _check_switch(self, head: strict.ResponseHead) -> None:
        key = self._websocket_key
        if key is None:
            raise UntrustedInputError("a 101 that nobody asked for")
        digest = hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()
        if (
            head.values(b"sec-websocket-accept") != [base64.b64encode(digest)]
            or head.tokens(b"upgrade") != {b"websocket"}
            or b"upgrade" not in head.tokens(b"connection")
        ):
            raise UntrustedInputError("a 101 that does not accept the WebSocket that was asked for")

    async def _switch(self, wire: SocketWire, upstream: Upstream, head: strict.ResponseHead) -> Outcome:
        headers = [
            *_end_to_end(head.headers, head.tokens(b"connection")),
            (b"Connection", b"Upgrade"),
            (b"Upgrade", b"websocket"),
        ]
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            *(name + b": " + value for name, value in headers),
            b"",
            b"",
        ]
        await self._to_client(b"\r\n".join(lines))
        to_upstream = bytes(self._down.trailing_data[0]) + take(self._client)
        return Outcome(
            status=101,
            address=upstream.address,
            sent_bytes=0,
            received_bytes=0,
            reuse_client=False,
            reuse_upstream=False,
            switched=(to_upstream, take(wire)),
        )


_WRITE_AT_BYTES = 256 * 1024


class _UpstreamClosedError(Exception):
    """The upstream ended its stream before a response."""


def _end_to_end(headers: strict.Headers, dropped: set[bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in dropped]


def _client_head(head: strict.RequestHead, *, websocket: bool) -> bytes:
    """The request as h11 must see it: its framing, and whether the client keeps the connection."""
    lines = [f"{head.method} / HTTP/1.{head.minor_version}", "Host: client"]
    connection = head.tokens(b"connection") | head.tokens(b"proxy-connection")
    if b"close" in connection:
        lines.append("Connection: close")
    elif websocket:
        lines += ["Connection: upgrade", "Upgrade: websocket"]
    if head.length is None:
        lines.append("Transfer-Encoding: chunked")
    elif head.length:
        lines.append(f"Content-Length: {head.length}")
    return "\r\n".join([*lines, "", ""]).encode()


def _websocket_key(head: strict.RequestHead) -> bytes | None:
    """The key of a valid WebSocket opening (RFC 6455 section 4.2.1), or None if it is not one."""
    keys = head.values(b"sec-websocket-key")
    asked = b"upgrade" in head.tokens(b"connection") and head.tokens(b"upgrade") == {b"websocket"}
    if not asked or head.method != "GET" or head.length != 0 or len(keys) != 1 or not head.minor_version:
        return None
    if head.values(b"sec-websocket-version") != [b"13"]:
        return None
    try:
        valid = len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        return None
    return keys[0] if valid else None
