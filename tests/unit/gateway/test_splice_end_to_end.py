"""TLS and raw TCP through a whole gateway: what passes, and what never reaches an origin."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.gateway.authority import Authority
from cloister.gateway.services import Deadlines
from tests.fakes.origin import Origin, Seen, server_context, swallow
from tests.unit.gateway.harness import Harness, plan, read_all, rule
from tests.unit.gateway.test_clienthello import RETRY, build, hello, sni

NAME = "origin.example.com"


@pytest.fixture
def upstream_ca() -> Authority:
    return Authority("upstream")


@pytest.fixture
def origin(upstream_ca: Authority) -> Iterator[Origin]:
    origin = Origin(tls=server_context(upstream_ca, NAME))
    yield origin
    origin.close()


@pytest.fixture
def sandbox(origin: Origin, tmp_path: Path) -> Iterator[Harness]:
    compiled = plan(
        rule(NAME),
        rule("other.example.com"),
        rule("db.example.com", ports=(5432,), transport="tcp"),
        hosts=dict.fromkeys((NAME, "other.example.com"), ("127.0.0.1", origin.port)),
    )
    with Harness(compiled, directory=tmp_path) as harness:
        yield harness


def _client(ca: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca.pem.decode())


def test_tls_to_an_allowed_name_is_spliced_untouched(
    sandbox: Harness, origin: Origin, upstream_ca: Authority
) -> None:
    with _client(upstream_ca).wrap_socket(sandbox.dial_name(NAME, 443), server_hostname=NAME) as tls:
        tls.sendall(b"hello")
        assert tls.recv(100) == b"hello"
    event = sandbox.log.wait(lambda event: event.kind == "connect")
    assert (event.host, event.port, event.protocol, event.rule) == (NAME, 443, "tls", f"allow {NAME}")
    assert (event.address, event.via) == ("127.0.0.1", "transparent")
    assert event.sent_bytes and event.received_bytes


def test_connect_through_the_proxy_is_spliced(
    sandbox: Harness, origin: Origin, upstream_ca: Authority
) -> None:
    sock = sandbox.proxy()
    sock.sendall(
        f"CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\nProxy-Authorization: Basic eDp5\r\n\r\n".encode()
    )
    assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    with _client(upstream_ca).wrap_socket(sock, server_hostname=NAME) as tls:
        tls.sendall(b"hello")
        assert tls.recv(100) == b"hello"
    assert sandbox.log.wait(lambda event: event.kind == "connect").via == "proxy"


def test_sni_of_another_name_gets_the_page_and_dials_nothing(sandbox: Harness, origin: Origin) -> None:
    sock = sandbox.dial_name(NAME, 443)
    with sandbox.trusting().wrap_socket(sock, server_hostname="other.example.com") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
        page = read_all(tls)
    assert page.startswith(b"HTTP/1.1 403 Refused by cloister: the server name (SNI)")
    assert "other.example.com" in (sandbox.log.refusal().reason or "")
    assert not origin.seen


def test_an_address_dialled_directly_gets_the_page(sandbox: Harness, origin: Origin) -> None:
    with sandbox.trusting().wrap_socket(sandbox.dial("192.0.2.1", 443), server_hostname=NAME) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        page = read_all(tls)
    assert b"dialled by address (192.0.2.1), not by name" in page
    assert not origin.seen


def test_raw_tcp_rule_lets_the_server_speak_first(tmp_path: Path) -> None:
    def greet(seen: object, sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        sock.recv(100)

    origin = Origin(greet)
    compiled = plan(
        rule("db.example.com", ports=(5432,), transport="tcp"),
        hosts={"db.example.com": ("127.0.0.1", origin.port)},
    )
    compiled["bound"] = [{"host": "db.example.com", "ports": [5432]}]
    with Harness(compiled, directory=tmp_path) as sandbox:
        assert sandbox.dial_name("db.example.com", 5432).recv(100) == b"220 ready\r\n"
    origin.close()


def test_a_hello_retry_is_followed(sandbox: Harness, tmp_path: Path, upstream_ca: Authority) -> None:
    context = server_context(upstream_ca, NAME)
    context.set_ecdh_curve("secp521r1")  # no client offers a key share for it, so the server asks again
    origin = Origin(tls=context)
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", origin.port)})
    with Harness(compiled, directory=tmp_path) as retrying:
        with _client(upstream_ca).wrap_socket(retrying.dial_name(NAME, 443), server_hostname=NAME) as tls:
            tls.sendall(b"hello")
            assert tls.recv(100) == b"hello"
    origin.close()


@pytest.mark.parametrize("early", [True, False])
def test_a_second_hello_for_another_name_never_arrives(tmp_path: Path, early: bool) -> None:
    def retry(seen: Seen, sock: socket.socket) -> None:
        seen.data += sock.recv(65536)
        sock.sendall(RETRY)
        while data := sock.recv(65536):
            seen.data += data
        seen.ended.set()

    origin = Origin(retry)
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", origin.port)})
    first, second = hello(NAME), hello("evil.example.com")
    with Harness(compiled, directory=tmp_path) as sandbox:
        sock = sandbox.dial_name(NAME, 443)
        sock.sendall(first + second if early else first)
        assert sock.recv(1000) == RETRY
        if not early:
            sock.sendall(second)
        read_all(sock)
        assert "second ClientHello" in (sandbox.log.refusal().reason or "")
        assert origin.seen[0].ended.wait(10)
        assert bytes(origin.seen[0].data) == first
    origin.close()


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (hello(None), "without a server name"),
        (hello("192.0.2.1"), "without a server name"),  # clients leave addresses out of the SNI
        (build(extensions=[sni(b"192.0.2.1")]), "no host name"),
        (build(extensions=[sni(b"0x7f000001")]), "no host name"),
        (build(extensions=[sni(b"other.example.com")]), '"other.example.com"'),
        (build(extensions=[sni(b"origin.example.com.evil.com")]), "evil.com"),
        (build(extensions=[sni(b"origin.example.com"), (0xFE0D, b"x")]), "encrypted_client_hello"),
        (build(extensions=[sni(b"origin.example.com"), sni(b"origin.example.com")]), "twice"),
        (b"\x16\x03\x01\x00\x05GET / HTTP/1.1\r\n", "not a ClientHello"),
        (b"SSH-2.0-OpenSSH_9\r\n", "bad request"),
        (b"\x00\x01\x02", "neither TLS nor HTTP"),
        (b"ssh", "neither TLS nor HTTP"),
    ],
)
def test_what_is_no_tls_for_the_name_dials_nothing(
    sandbox: Harness, origin: Origin, untrusted: bytes, reason: str
) -> None:
    sock = sandbox.dial_name(NAME, 443)
    sock.sendall(untrusted)
    sock.shutdown(socket.SHUT_WR)
    read_all(sock)
    assert reason in (sandbox.log.refusal().reason or "")
    assert not origin.seen


@pytest.mark.parametrize("name", ["ORIGIN.example.com", "origin.example.com."])
def test_name_2_other_spellings_are_the_same_name(sandbox: Harness, origin: Origin, name: str) -> None:
    sock = sandbox.dial_name(NAME, 443)
    sock.sendall(build(extensions=[sni(name.encode())]))
    assert origin.accepted.acquire(timeout=10)


def test_a_slow_hello_passes_byte_by_byte(sandbox: Harness, origin: Origin) -> None:
    sock = sandbox.dial_name(NAME, 443)
    for byte in build(extensions=[sni(NAME.encode())]):
        sock.send(bytes([byte]))
    assert origin.accepted.acquire(timeout=10)


def test_an_upstream_that_resets_the_handshake_is_written_down(tmp_path: Path) -> None:
    def reset(seen: Seen, sock: socket.socket) -> None:
        sock.recv(65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    origin = Origin(reset)
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", origin.port)})
    with Harness(compiled, directory=tmp_path) as sandbox:
        sock = sandbox.dial_name(NAME, 443)
        sock.sendall(hello(NAME))
        assert read_all(sock) == b""
        assert "broke within the TLS handshake" in (sandbox.log.refusal().reason or "")
    origin.close()


def test_an_upstream_that_hangs_in_the_handshake_ends_in_time(tmp_path: Path) -> None:
    origin = Origin(swallow)
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", origin.port)})
    with Harness(compiled, directory=tmp_path, deadlines=Deadlines(handshake_s=0.1)) as sandbox:
        sock = sandbox.dial_name(NAME, 443)
        sock.sendall(hello(NAME))
        assert read_all(sock) == b""
        assert "not answered in time" in (sandbox.log.refusal().reason or "")
    origin.close()


def test_an_upstream_that_cannot_be_reached_gets_a_page_over_tls(tmp_path: Path) -> None:
    closed = Origin()
    closed.close()
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", closed.port)})
    with Harness(compiled, directory=tmp_path) as sandbox:
        with sandbox.trusting().wrap_socket(sandbox.dial_name(NAME, 443), server_hostname=NAME) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: origin.example.com\r\n\r\n")
            page = read_all(tls)
        assert page.startswith(b"HTTP/1.1 502 Failed at cloister: connecting to origin.example.com failed")
        assert sandbox.log.refusal().status == 502


def test_a_hello_that_the_end_of_the_sandbox_cuts_is_written(tmp_path: Path) -> None:
    silent = Origin(swallow)
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", silent.port)})
    with Harness(compiled, directory=tmp_path) as sandbox:
        sandbox.dial_name(NAME, 443).sendall(hello(NAME))
        assert silent.accepted.acquire(timeout=10)
        while not silent.seen[0].data:
            time.sleep(0.01)
    event = sandbox.log.wait(lambda event: event.kind == "connect")
    assert (event.host, event.sent_bytes) == (NAME, len(silent.seen[0].data))
    silent.close()
