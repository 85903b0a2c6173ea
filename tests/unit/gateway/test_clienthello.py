"""The ClientHello judge: real hellos of OpenSSL, cut and bent in every way."""

from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import UntrustedInputError
from cloister.gateway import clienthello
from cloister.gateway.clienthello import ClientHello


def hello(name: str | None = "h.example.com", *, alpn: list[str] | None = None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def build(
    *,
    extensions: list[tuple[int, bytes]] | None = None,
    version: int = 0x0303,
    suites: bytes = b"\x13\x01",
    compression: bytes = b"\0",
    session: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A hello by hand, in one record."""
    data = b"".join(struct.pack("!HH", kind, len(value)) + value for kind, value in extensions or [])
    body = struct.pack("!H", version) + bytes(32) + bytes([len(session)]) + session
    body += struct.pack("!H", len(suites)) + suites + bytes([len(compression)]) + compression
    if extensions is not None:
        body += struct.pack("!H", len(data)) + data
    return record(b"\x01" + len(body).to_bytes(3, "big") + body + after)


def record(handshake: bytes, *, kind: int = 22, version: int = 0x0301) -> bytes:
    return struct.pack("!BHH", kind, version, len(handshake)) + handshake


def sni(name: bytes, *, kind: int = 0, more: bytes = b"") -> tuple[int, bytes]:
    entry = bytes([kind]) + struct.pack("!H", len(name)) + name + more
    return 0, struct.pack("!H", len(entry)) + entry


def _whole(untrusted: bytes) -> ClientHello:
    parsed = clienthello.parse(untrusted)
    assert parsed is not None
    return parsed


def test_a_real_hello() -> None:
    data = hello(alpn=["h2", "http/1.1"])
    parsed = _whole(data)
    assert parsed.untrusted_server_name == "h.example.com"
    assert parsed.alpn == (b"h2", b"http/1.1")
    assert not parsed.encrypted
    assert parsed.length == len(data)


def test_without_a_name() -> None:
    assert _whole(hello(None)).untrusted_server_name is None
    assert _whole(build()).untrusted_server_name is None


def test_byte_by_byte() -> None:
    data = hello()
    assert all(clienthello.parse(data[:cut]) is None for cut in range(len(data)))
    assert clienthello.parse(data) is not None


def test_early_data_after_the_hello_is_left_alone() -> None:
    data = hello()
    assert _whole(data + b"\x14\x03\x03\x00\x01\x01").length == len(data)


@pytest.mark.parametrize("size", [2, 3, 7, 100])
def test_fragmented_over_records(size: int) -> None:
    handshake = hello()[5:]
    fragments = [record(handshake[at : at + size]) for at in range(0, len(handshake), size)]
    if len(fragments) <= 256:
        assert _whole(b"".join(fragments)).untrusted_server_name == "h.example.com"
    else:
        with pytest.raises(UntrustedInputError, match="too many records"):
            clienthello.parse(b"".join(fragments))


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_encrypted_hello_is_seen(kind: int) -> None:
    assert _whole(build(extensions=[sni(b"h.example.com"), (kind, b"x")])).encrypted


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (record(b"\x02\0\0\0"), "not a ClientHello"),
        (record(b"\x01", kind=23), "not a TLS handshake"),
        (record(b"\x01", version=0x0200), "record version"),
        (record(b"\x01", version=0x0305), "record version"),
        (record(b"\x01", version=0x0300), "record version"),
        (b"\x16\x03\x01\x00\x00", "record length"),
        (b"\x16\x03\x01\xff\xff", "record length"),
        (record(b"\x01\x01\x00\x01"), "too long"),
        (build(after=b"x"), "bytes after the ClientHello"),
        (build(version=0x0302), "older than TLS 1.2"),
        (build(suites=b""), "cipher suites"),
        (build(suites=b"\x13"), "cipher suites"),
        (build(compression=b""), "compression"),
        (build(compression=b"\x01"), "compression"),
        (build(session=bytes(33)), "session id"),
        (build(extensions=[sni(b"a.example"), sni(b"b.example")]), "twice"),
        (build(extensions=[sni(b"a.example", more=b"\0\0\x01b")]), "bytes after"),
        (build(extensions=[sni(b"a.example", kind=1)]), "name type"),
        (build(extensions=[sni(b"")]), "host name in SNI"),
        (build(extensions=[sni(b"a\0b")]), "host name in SNI"),
        (build(extensions=[sni(b"a b")]), "host name in SNI"),
        (build(extensions=[sni(b"\xc3\xa4.example")]), "host name in SNI"),
        (build(extensions=[sni(b"a" * 256)]), "host name in SNI"),
        (build(extensions=[(0, b"")]), "truncated"),
        (build(extensions=[(0, b"\0\x05\0\0\x01a")]), "truncated"),
        (build(extensions=[(16, b"\0\0")]), "ALPN"),
        (build(extensions=[(16, b"\0\x01\0")]), "ALPN"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UntrustedInputError, match=reason):
        clienthello.parse(data)


@pytest.mark.parametrize("at", range(5, len(build(extensions=[sni(b"h.example.com")]))))
def test_a_changed_length_anywhere_never_yields_another_name(at: int) -> None:
    data = bytearray(build(extensions=[sni(b"h.example.com")]))
    data[at] ^= 1
    try:
        parsed = clienthello.parse(bytes(data))
    except UntrustedInputError:
        return
    if parsed is not None and parsed.untrusted_server_name is not None:
        assert len(parsed.untrusted_server_name) == len("h.example.com")


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_raise_nothing_else(untrusted: bytes, as_record: bool) -> None:
    try:
        clienthello.parse(record(b"\x01\0\0" + untrusted) if as_record else untrusted)
    except UntrustedInputError as error:
        assert str(error).isprintable()


RETRY = record(b"\x02\0\0\x28\x03\x03" + clienthello._RETRY_RANDOM + b"\0\x13\x01\0\0\0", version=0x0303)


def test_a_retry_is_told_from_a_server_hello_byte_by_byte() -> None:
    normal = record(b"\x02\0\0\x28\x03\x03" + bytes(32) + b"\0\x13\x01\0\0\0", version=0x0303)
    for cut in range(43):
        assert clienthello.retry_requested(RETRY[:cut]) is None
    assert clienthello.retry_requested(RETRY[:43]) is True
    assert clienthello.retry_requested(normal) is False
    assert clienthello.retry_requested(b"\x15\x03\x03\0\x02\x02\x28") is False


def test_the_second_hello_is_found_behind_early_data() -> None:
    before = record(b"\x01", kind=20) + record(b"secret" * 100, kind=23)
    data = before + hello()
    assert all(clienthello.parse_second(data[:cut]) is None for cut in range(len(data)))
    second = clienthello.parse_second(data)
    assert second is not None
    assert (second.untrusted_server_name, second.length) == ("h.example.com", len(data))
    with pytest.raises(UntrustedInputError):
        clienthello.parse_second(record(bytes(16384), kind=23) * 5 + hello())
