"""Read the TLS ClientHello (RFC 8446 section 4.1.2) that opens a connection, without decrypting anything.

Rule 1: strict. Every length must fit exactly, no extension comes twice, and what follows the hello in its
        own record is refused: a hello that two parsers can read differently is how a server is made to
        see another name.
Rule 2: bytes in, value out; the answer does not depend on how the bytes were cut into reads or records.
Rule 3: whether the name is allowed is the business of others; this only says what the hello claims.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.errors import UntrustedInputError

RECORD_HANDSHAKE = 22
LIMIT_BYTES = 64 * 1024  # of handshake; a hello with post-quantum shares is about 2 KiB
_RECORD_LIMIT_BYTES = 1 << 14  # TLSPlaintext, RFC 8446 section 5.1
_RECORDS_LIMIT = 256  # a hello in one-byte records is a game, not a client
_CLIENT_HELLO = 1
_RANDOM_AT = 5 + 4 + 2  # record header, handshake header, legacy_version
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_SERVER_NAME, _ALPN = 0, 16
# encrypted_client_hello (RFC 9849), and its draft ancestor encrypted_server_name
_ENCRYPTED = frozenset({0xFE0D, 0xFFCE})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a hello claims. `untrusted_server_name` is ASCII as sent; None if it has none."""

    untrusted_server_name: str | None
    encrypted: bool  # carries an encrypted (inner) hello, or GREASE that looks like one
    alpn: tuple[bytes, ...]
    length: int  # bytes of the records that hold it


def parse(untrusted: bytes) -> ClientHello | None:
    """The hello at the start of `untrusted`; None if more bytes are needed.

    Bytes after the records of the hello (early data) are left alone: see `length`.
    """
    handshake = bytearray()
    at = 0
    for _ in range(_RECORDS_LIMIT):
        header = untrusted[at : at + 5]
        _check_header(header)
        if len(header) < 5:
            return None
        size = int.from_bytes(header[3:5], "big")
        fragment = untrusted[at + 5 : at + 5 + size]
        handshake += fragment
        _check_handshake(handshake)
        at += 5 + size
        if len(fragment) < size:
            return None
        if len(handshake) >= 4:
            length = int.from_bytes(handshake[1:4], "big")
            if len(handshake) == 4 + length:
                return _hello(bytes(handshake[4:]), at)
    raise UntrustedInputError("ClientHello in too many records")


def retry_requested(untrusted_flight: bytes) -> bool | None:
    """Whether a server's first flight is a HelloRetryRequest (RFC 8446 section 4.1.4); None if it is too short.

    Then the client sends a second hello in the clear, and a server may go by the name in that one.
    """
    if not untrusted_flight:
        return None
    if untrusted_flight[0] != RECORD_HANDSHAKE or untrusted_flight[5:6] not in (b"", b"\x02"):
        return False  # an alert, or what is no ServerHello
    if len(untrusted_flight) < _RANDOM_AT + 32:
        return None
    return untrusted_flight[_RANDOM_AT : _RANDOM_AT + 32] == _RETRY_RANDOM


def parse_second(untrusted: bytes) -> ClientHello | None:
    """The hello that answers a HelloRetryRequest; None if more bytes are needed. `length` counts from the start.

    Before it may come a change_cipher_spec and early data that the server skips (RFC 8446 section 4.2.10).
    """
    at = 0
    while untrusted[at : at + 1] in (b"\x14", b"\x17"):
        if len(untrusted) < at + 5:
            return None
        at += 5 + int.from_bytes(untrusted[at + 3 : at + 5], "big")
    if at > LIMIT_BYTES:
        raise UntrustedInputError("too much before the second ClientHello")
    parsed = parse(untrusted[at:])
    return None if parsed is None else replace(parsed, length=at + parsed.length)


def _check_header(header: bytes) -> None:
    """Refuse as early as a byte is wrong, so that a slow forger learns nothing by waiting."""
    if header and header[0] != RECORD_HANDSHAKE:
        raise UntrustedInputError("not a TLS handshake record")
    if len(header) > 1 and header[1] != 3:
        raise UntrustedInputError("bad TLS record version")
    if len(header) > 2 and not 1 <= header[2] <= 4:
        raise UntrustedInputError("bad TLS record version")
    if len(header) == 5 and not 1 <= int.from_bytes(header[3:5], "big") <= _RECORD_LIMIT_BYTES:
        raise UntrustedInputError("bad TLS record length")


def _check_handshake(handshake: bytearray) -> None:
    if handshake and handshake[0] != _CLIENT_HELLO:
        raise UntrustedInputError("the first TLS message is not a ClientHello")
    if len(handshake) >= 4:
        length = int.from_bytes(handshake[1:4], "big")
        if length > LIMIT_BYTES:
            raise UntrustedInputError("ClientHello is too long")
        if len(handshake) > 4 + length:
            raise UntrustedInputError("bytes after the ClientHello in its record")


def _hello(body: bytes, length: int) -> ClientHello:
    reader = _Reader(body)
    if reader.integer(2) != 0x0303:  # TLS 1.2 and 1.3; older versions are refused by every maintained server
        raise UntrustedInputError("ClientHello is older than TLS 1.2")
    reader.take(32)
    if len(reader.vector(1)) > 32:
        raise UntrustedInputError("bad session id in ClientHello")
    suites = reader.vector(2)
    if not suites or len(suites) % 2:
        raise UntrustedInputError("bad cipher suites in ClientHello")
    if 0 not in reader.vector(1):
        raise UntrustedInputError("bad compression methods in ClientHello")
    extensions = _extensions(reader.vector(2)) if reader.left() else {}
    reader.end()
    return ClientHello(
        untrusted_server_name=_server_name(extensions.get(_SERVER_NAME)),
        encrypted=not _ENCRYPTED.isdisjoint(extensions),
        alpn=_protocols(extensions.get(_ALPN)),
        length=length,
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    reader = _Reader(data)
    found: dict[int, bytes] = {}
    while reader.left():
        kind = reader.integer(2)
        if kind in found:
            raise UntrustedInputError("an extension comes twice in ClientHello")
        found[kind] = reader.vector(2)
    return found


def _server_name(data: bytes | None) -> str | None:
    """RFC 6066 section 3: a list with exactly one host_name."""
    if data is None:
        return None
    outer = _Reader(data)
    entries = _Reader(outer.vector(2))
    outer.end()
    if entries.integer(1) != 0:
        raise UntrustedInputError("unknown name type in SNI")
    name = entries.vector(2)
    entries.end()
    if not 1 <= len(name) <= 255 or not all(0x21 <= byte <= 0x7E for byte in name):
        raise UntrustedInputError("bad host name in SNI")
    return name.decode("ascii")


def _protocols(data: bytes | None) -> tuple[bytes, ...]:
    """RFC 7301 section 3.1."""
    if data is None:
        return ()
    outer = _Reader(data)
    entries = _Reader(outer.vector(2))
    outer.end()
    names = []
    while entries.left():
        names.append(entries.vector(1))
    if not names or b"" in names:
        raise UntrustedInputError("bad protocol list in ALPN")
    return tuple(names)


class _Reader:
    """A cursor over TLS presentation language; whatever does not fit is refused."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > self.left():
            raise UntrustedInputError("truncated field in ClientHello")
        self._at += size
        return self._data[self._at - size : self._at]

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.integer(size))

    def left(self) -> int:
        return len(self._data) - self._at

    def end(self) -> None:
        if self.left():
            raise UntrustedInputError("bytes after a field in ClientHello")
