"""One request and its response as streams: what forwarding sees of HTTP/1.1 and HTTP/2, on either side.

A message is a head, parts of a body, trailers, an end. `Downstream` is the side of the sandbox (we serve),
`Upstream` the side of the destination (we ask).

Rule 1: reading and writing wait for each other end to end: `write` returns when the peer (its socket buffer, its
        flow-control window) has taken the bytes, and nothing is read before `read` is called but one bounded buffer.
Rule 2: a message that was cut must not look whole: `abort` resets.
Rule 3: errors. From the client's side OSError: it has gone. UntrustedInputError: it broke the protocol.
        From the upstream's side `UpstreamError`, always.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from cloister.gateway.strict import Form
from cloister.messages import Headers, RequestHead, ResponseHead


class StaleError(Exception):
    """A reused upstream connection had gone before it can have acted on the request, which may be sent again."""


class Downstream(Protocol):
    """A request from the sandbox, and the place for its response. Lives as long as the handler's call."""

    request: RequestHead
    form: Form  # of the request's target
    h2: bool  # whether it came over HTTP/2
    answered: bool  # a byte of the final response may have gone
    keep_alive: bool  # False: the connection ends after this response, where the protocol allows

    @property
    def left(self) -> bool:
        """Whether the handler was cancelled because nobody waits for the response any more."""

    @property
    def trailers(self) -> Headers:
        """The request's; valid once `read` has given b""."""

    async def read(self) -> bytes:
        """The next part of the body (at most 256 KiB); b"" at its end, and ever after."""

    async def send_continue(self) -> None:
        """100 Continue, if the client waits for one."""

    async def send_head(self, head: ResponseHead, *, ended: bool) -> None:
        """The final response's head; `ended`: nothing follows."""

    async def flush(self) -> None:
        """Let go of a head that waits for its first part, to leave in one piece with it."""

    async def write(self, data: bytes) -> None:
        """A part of the response's body."""

    async def finish(self, trailers: Headers = ()) -> None:
        """The response is whole."""

    def abort(self) -> None:
        """Reset: what has been sent is not whole. Idempotent, also after `finish`."""

    async def switch(self, accept: bytes, headers: Headers) -> RawStream:
        """HTTP/1.1 only: 101 to WebSocket; the bytes that follow are the caller's."""


class Upstream(Protocol):
    """A request to a destination, and its response. Ends with `release` or `abort`."""

    address: str  # that was dialled, for the audit log

    @property
    def trailers(self) -> Headers:
        """The response's; valid once `read` has given b""."""

    async def send_head(self, request: RequestHead, *, ended: bool) -> None:
        """The request's head, with its `untrusted_authority` replaced by what was judged; `ended`: no body follows.

        StaleError if a reused connection has gone.
        """

    async def write(self, data: bytes) -> None:
        """A part of the request's body."""

    async def finish(self, trailers: Headers = ()) -> None:
        """The request is whole."""

    async def response(self, on_continue: Callable[[], Awaitable[None]]) -> ResponseHead:
        """The final response's head, or 101. Interim ones are dropped, but 100 is told.

        StaleError if a reused connection went without a byte of an answer, and the request had no body.
        """

    @property
    def at_hand(self) -> bool:
        """Whether `read` need not wait."""

    async def read(self) -> bytes:
        """The next part of the response's body (at most 256 KiB); b"" at its end, and ever after."""

    def switch(self) -> RawStream:
        """After a 101: the bytes that follow."""

    def release(self) -> None:
        """Done: the connection may serve others if both messages were whole, else it is reset."""

    def abort(self) -> None:
        """Reset. Idempotent, also after `release`."""


class RawStream(Protocol):
    """Bytes of a connection that has switched protocols."""

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""

    async def write(self, data: bytes) -> None: ...

    async def finish(self) -> None:
        """No more bytes from us; the peer may still send."""

    def abort(self) -> None:
        """End it; what was written may still arrive."""

    def reset(self) -> None:
        """End it so that what was written does not look whole."""


Handler = Callable[[Downstream], Awaitable[None]]
"""Serves one request. It answers or aborts it; an exception of it aborts the request."""
