"""Undo content encodings, so that a body can be searched.

Rule 1: a piece at a time, each at most PIECE_BYTES: a bomb costs time, not memory.
Rule 2: what is cut short, or is not what it says, raises UntrustedInputError.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from cloister.errors import UntrustedInputError

PIECE_BYTES = 256 * 1024
KNOWN = (b"gzip", b"deflate", b"br", b"zstd")
_CHAIN_LIMIT = 2


class Decoder(Protocol):
    """Undoes one encoding, or a chain of them."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def end(self) -> None:
        """UntrustedInputError if the stream is not whole."""


def decoder(content_encoding: bytes) -> Decoder | None:
    """A decoder for a Content-Encoding; None if there is nothing to undo. UntrustedInputError for an unknown one."""
    names = [name.strip().lower() for name in content_encoding.split(b",")]
    names = [name for name in names if name not in (b"", b"identity")]
    if len(names) > _CHAIN_LIMIT:
        raise UntrustedInputError("too many content encodings")
    chain = [_single(name) for name in reversed(names)]
    if not chain:
        return None
    return chain[0] if len(chain) == 1 else _Chain(chain[0], chain[1])


def accept_encoding(asked: bytes) -> bytes:
    """What to ask an upstream for: what the client wants and we can undo."""
    wanted = []
    for item in asked.split(b","):
        name, _, parameters = item.partition(b";")
        name = name.strip().lower()
        if name in KNOWN and parameters.replace(b" ", b"") not in (b"q=0", b"q=0.0"):
            wanted.append(name)
    return b", ".join(wanted) or b"identity"


def _single(name: bytes) -> Decoder:
    match name:
        case b"gzip" | b"x-gzip":
            return _Zlib(31)
        case b"deflate":
            return _Deflate()
        case b"br":
            return _Brotli()
        case b"zstd":
            return _Zstandard()
        case _:
            raise UntrustedInputError("an unknown content encoding")


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._stream = zlib.decompressobj(window_bits)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                if self._stream.eof:  # a further member (RFC 1952 section 2.2)
                    self._stream = zlib.decompressobj(self._window_bits)
                self._begun = True
                piece = self._stream.decompress(data, PIECE_BYTES)
                yield piece
                while len(piece) == PIECE_BYTES and not self._stream.eof and not self._stream.unconsumed_tail:
                    piece = self._stream.decompress(
                        b"", PIECE_BYTES
                    )  # it had more to say than may be said at once
                    yield piece
                data = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error as error:
            raise UntrustedInputError(f"the body is not what its Content-Encoding says: {error}") from None

    def end(self) -> None:
        if self._begun and not self._stream.eof:
            raise UntrustedInputError("the encoded body is cut short")


class _Deflate:
    """RFC 9110 means zlib's format; some servers send bare deflate."""

    def __init__(self) -> None:
        self._inner: _Zlib | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None and data:
            self._inner = _Zlib(15 if data[0] & 0x0F == 8 else -15)
        return self._inner.feed(data) if self._inner is not None else iter(())

    def end(self) -> None:
        if self._inner is not None:
            self._inner.end()


class _Brotli:
    def __init__(self) -> None:
        import brotli  # deferred: half a megabyte, seldom needed

        self._error: type[Exception] = brotli.error
        self._stream = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = self._begun or bool(data)
        try:
            piece = self._stream.process(data, output_buffer_limit=PIECE_BYTES)
            while piece or not self._stream.can_accept_more_data():
                yield from _sliced(piece)
                piece = self._stream.process(b"", output_buffer_limit=PIECE_BYTES)
        except self._error:
            raise UntrustedInputError("the body is not what its Content-Encoding says: brotli") from None

    def end(self) -> None:
        if self._begun and not self._stream.is_finished():
            raise UntrustedInputError("the encoded body is cut short")


class _Zstandard:
    _WINDOW_BYTES = 8 << 20  # RFC 9659: what an HTTP client must take

    def __init__(self) -> None:
        import zstandard  # deferred: a megabyte, seldom needed

        self._error: type[Exception] = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=self._WINDOW_BYTES)
        self._stream = self._context.decompressobj()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = self._begun or bool(data)
        try:
            for start in range(0, len(data), _ZSTD_STEP_BYTES):
                step = data[start : start + _ZSTD_STEP_BYTES]
                while step:
                    if self._stream.eof:  # a further frame (RFC 8878 section 3)
                        self._stream = self._context.decompressobj()
                    yield from _sliced(self._stream.decompress(step))
                    step = self._stream.unused_data
        except self._error:
            raise UntrustedInputError("the body is not what its Content-Encoding says: zstd") from None

    def end(self) -> None:
        if self._begun and not self._stream.eof:
            raise UntrustedInputError("the encoded body is cut short")


_ZSTD_STEP_BYTES = 256  # the library gives all that its input holds: less of it bounds the output


def _sliced(piece: bytes) -> Iterator[bytes]:
    for at in range(0, len(piece), PIECE_BYTES):
        yield piece[at : at + PIECE_BYTES]


class _Chain:
    def __init__(self, outer: Decoder, inner: Decoder) -> None:
        self._outer, self._inner = outer, inner

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in self._outer.feed(data):
            yield b""  # a place to let others run: what comes out may be nothing for long
            yield from self._inner.feed(piece)

    def end(self) -> None:
        self._outer.end()
        self._inner.end()
