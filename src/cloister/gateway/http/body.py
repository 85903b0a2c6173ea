"""Bodies of HTTP/1.1 messages: where they end, and how they are written (RFC 9112 sections 6 and 7).

Rule 1: strict. A chunk's size has one reading; a body that is shorter or longer than declared is an error, not a guess.
Rule 2: what is forwarded is framed anew: chunk extensions end here, trailers are parsed like headers.
Rule 3: raises UntrustedInputError only; whoever reads an upstream makes that an `UpstreamError`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.wire import take

if TYPE_CHECKING:
    from cloister.gateway.wire import Wire
    from cloister.messages import Headers

PART_BYTES = 256 * 1024
_SIZE_LINE_BYTES = 256
_TRAILERS_BYTES = 16 * 1024
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")

# Of one connection, or of the framing: a message that is written anew says them anew (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization proxy-authentication-info "
    b"te trailer transfer-encoding upgrade expect content-length host http2-settings".split()
)
# What must not come behind a body (RFC 9110 section 6.5.1).
NOT_IN_TRAILERS = HOP_BY_HOP | frozenset(
    b"authorization set-cookie cookie content-encoding content-type content-range location cache-control".split()
)


class BodyEndedError(UntrustedInputError):
    """The stream ended within a body."""


class Body:
    """One body on its way in. `length` None: chunked, or until the stream's end if `until_end`."""

    __slots__ = ("_chunk_left", "_chunked", "_left", "_until_end", "_wire", "ended", "trailers")

    def __init__(self, wire: Wire, length: int | None, *, until_end: bool = False) -> None:
        self._wire = wire
        self._left = length or 0
        self._chunked = length is None and not until_end
        self._until_end = until_end
        self._chunk_left = 0
        self.ended = length == 0
        self.trailers: Headers = ()

    @property
    def at_hand(self) -> bool:
        """Whether a read need not wait; seldom wrong for the last bytes of a chunk's frame."""
        return self.ended or bool(self._wire.buffer)

    async def read(self) -> bytes:
        """The next part; b"" at the end. UntrustedInputError if it breaks off, or is not framed as it should be."""
        if self.ended:
            return b""
        if self._chunked:
            return await self._read_chunked()
        if not self._wire.buffer and not await self._wire.more():
            return self._end_of_stream()
        part = take(self._wire, PART_BYTES if self._until_end else min(self._left, PART_BYTES))
        if not self._until_end:
            self._left -= len(part)
            self.ended = not self._left
        return part

    def _end_of_stream(self) -> bytes:
        if not self._until_end or self._wire.truncated:
            raise BodyEndedError("the body is shorter than declared")
        self.ended = True
        return b""

    async def _read_chunked(self) -> bytes:
        if not self._chunk_left:
            line = await self._line(_SIZE_LINE_BYTES)
            match = _SIZE.fullmatch(line)
            if match is None:
                raise UntrustedInputError("bad chunk size")
            self._chunk_left = int(match[1], 16)
            if not self._chunk_left:
                self.trailers = await self._read_trailers()
                self.ended = True
                return b""
        if not self._wire.buffer and not await self._wire.more():
            raise BodyEndedError("the stream ended within a chunk")
        part = take(self._wire, min(self._chunk_left, PART_BYTES))
        self._chunk_left -= len(part)
        if not self._chunk_left:
            while len(self._wire.buffer) < 2:
                if not await self._wire.more():
                    raise BodyEndedError("the stream ended within a chunk")
            if take(self._wire, 2) != b"\r\n":
                raise UntrustedInputError("a chunk is longer than its size")
        return part

    async def _line(self, limit_bytes: int) -> bytes:
        """Up to the next CRLF, without it."""
        buffer = self._wire.buffer
        while (end := buffer.find(b"\n", 0, limit_bytes)) < 0:
            if len(buffer) >= limit_bytes:
                raise UntrustedInputError("a line within a chunked body is too long")
            if not await self._wire.more():
                raise BodyEndedError("the stream ended within a chunked body")
            buffer = self._wire.buffer
        line = take(self._wire, end + 1)
        if not line.endswith(b"\r\n"):
            raise UntrustedInputError("bare LF within a chunked body")
        return line[:-2]

    async def _read_trailers(self) -> Headers:
        lines, left = [], _TRAILERS_BYTES
        while line := await self._line(left):
            lines.append(line)
            left -= len(line) + 2
            if left <= 0:
                raise UntrustedInputError("the trailers are too long")
        if not lines:
            return ()
        return tuple(pair for pair in strict.header_lines(lines) if pair[0] not in NOT_IN_TRAILERS)


def chunk(data: bytes) -> bytes:
    """One chunk, framed."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Headers) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + lines(trailers) + b"\r\n"


def lines(headers: Headers) -> bytes:
    """Headers as they stand in a message."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])
