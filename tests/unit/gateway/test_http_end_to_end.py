"""Plain HTTP through a whole gateway, transparent and through the proxy."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.gateway.services import Deadlines
from tests.fakes.origin import Origin, Seen, Serve, respond, swallow
from tests.unit.gateway.harness import Harness, plan, read_all, rule

NAME = "origin.example.com"
OTHER = "other.example.com"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Start = Callable[..., tuple[Harness, Origin]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a gateway in front of an origin; both names are pinned to it."""
    running: list[tuple[Harness, Origin]] = []

    def run(serve: Serve, *, deadlines: Deadlines | None = None, **more: object) -> tuple[Harness, Origin]:
        origin = Origin(serve)
        grant = rule(NAME) | more
        compiled = plan(grant, rule(OTHER), hosts=dict.fromkeys((NAME, OTHER), ("127.0.0.1", origin.port)))
        harness = Harness(compiled, directory=tmp_path, deadlines=deadlines)
        harness.__enter__()
        running.append((harness, origin))
        return harness, origin

    yield run
    for harness, origin in running:
        harness.__exit__(None, None, None)
        origin.close()


def get(path: str = "/", *, host: str = NAME, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode()


def read_response(sock: socket.socket) -> bytes:
    """One response with a Content-Length, or all there is."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line[15:]):
                body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def test_a_request_is_written_anew(start: Start) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.dial_name(NAME, 80)
    extra = (
        "Connection: close, X-Secret\r\nX-Secret: 1\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers\r\n"
        "Keep-Alive: 5\r\nX-Kept: yes\r\nAccept: */*\r\n"
    )
    sock.sendall(get("/a%2Fb?token=1", extra=extra))
    assert read_all(sock).endswith(b"\r\n\r\nok")
    seen = bytes(origin.seen[0].data)
    assert seen.startswith(b"GET /a%2Fb?token=1 HTTP/1.1\r\nHost: origin.example.com\r\n")
    assert b"x-kept: yes" in seen.lower()
    for gone in (b"secret", b"proxy-auth", b"te:", b"keep-alive", b"connection"):
        assert gone not in seen.lower()
    event = sandbox.log.wait(lambda event: event.kind == "request")
    assert (event.method, event.path, event.status, event.rule) == ("GET", "/a%2Fb", 200, f"allow {NAME}")
    assert event.received_bytes == 2


def test_id_2_second_request_to_another_host_is_refused(start: Start) -> None:
    sandbox, origin = start(respond(OK, OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    assert read_response(sock).endswith(b"ok")
    sock.sendall(get(host=OTHER))
    page = read_all(sock)
    assert page.startswith(b"HTTP/1.1 403 Refused by cloister: the request names")
    assert b"x-cloister-refused: no-rule\r\n" in page
    assert b"other" not in origin.seen[0].data
    assert sandbox.log.refusal().via == "transparent"


def test_keep_alive_serves_many_requests_on_one_upstream_connection(start: Start) -> None:
    sandbox, origin = start(respond(OK, OK, OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get("/1"))
    assert read_response(sock).endswith(b"ok")
    sock.sendall(get("/2") + get("/3", extra="Connection: close\r\n"))  # pipelined
    assert read_all(sock).count(b"HTTP/1.1 200") == 2
    assert len(origin.seen) == 1


def test_an_upstream_that_closed_meanwhile_is_dialled_again(start: Start) -> None:
    def once(seen: Seen, sock: socket.socket) -> None:
        seen.data += sock.recv(65536)
        sock.sendall(OK)
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        seen.ended.set()

    sandbox, origin = start(once)
    sock = sandbox.dial_name(NAME, 80)
    for number in range(3):
        sock.sendall(get(f"/{number}"))
        assert read_response(sock).endswith(b"ok")
        assert origin.seen[number].ended.wait(10)
    assert len(origin.seen) == 3


@pytest.mark.parametrize("path", ["/private", "/public/../private", "/public/%2e%2e/private", "//private"])
def test_path_rules_are_judged_on_the_raw_path(start: Start, path: str) -> None:
    sandbox, origin = start(respond(OK), methods=["GET"], paths=["/public/**"], ports=[80])
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(path))
    assert read_all(sock).startswith(b"HTTP/1.1 403 ")
    assert not origin.seen
    allowed = sandbox.dial_name(NAME, 80)
    allowed.sendall(get("/public/x", extra="Connection: close\r\n"))
    assert read_all(allowed).endswith(b"ok")


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "x_http_method_override", "X-HTTP_Method"])
def test_http_7_a_method_override_is_judged_as_that_method(start: Start, name: str) -> None:
    sandbox, origin = start(respond(OK), methods=["GET"], ports=[80])
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(extra=f"{name}: DELETE\r\n"))
    assert read_all(sock).startswith(b"HTTP/1.1 403 ")
    assert not origin.seen


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\nHost: origin.example.com\n\n",
        b"\r\nGET / HTTP/1.1\r\nHost: origin.example.com\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: origin.example.com\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 70000,
    ],
)
def test_bad_requests_are_refused_and_never_dialled(start: Start, request_bytes: bytes) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(request_bytes)
    assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    assert not origin.seen


def test_smuggled_bytes_behind_a_refused_request_go_nowhere(start: Start) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(host=OTHER) + get("/smuggled"))
    assert read_all(sock).count(b"HTTP/1.1 ") == 1
    assert not origin.seen


def test_connect_inside_a_connection_is_refused(start: Start) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(b"CONNECT origin.example.com:80 HTTP/1.1\r\nHost: origin.example.com:80\r\n\r\n")
    assert b"CONNECT inside" in read_all(sock)
    proxied = sandbox.proxy()
    connect = f"CONNECT {NAME}:80 HTTP/1.1\r\nHost: {NAME}:80\r\n\r\n".encode()
    proxied.sendall(connect)
    assert proxied.recv(100).startswith(b"HTTP/1.1 200 ")
    proxied.sendall(connect)
    assert b"CONNECT inside" in read_all(proxied)
    assert not origin.seen


def test_a_large_body_is_streamed_up(start: Start) -> None:
    sandbox, origin = start(respond(OK))
    body = hashlib.sha256(b"x").digest() * 65536  # 2 MiB
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(f"POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert read_response(sock).endswith(b"ok")
    assert bytes(origin.seen[0].data).endswith(body)
    assert sandbox.log.wait(lambda event: event.kind == "request").sent_bytes == len(body)


def test_chunked_both_ways_and_trailers_dropped(start: Start) -> None:
    def serve(seen: Seen, sock: socket.socket) -> None:
        while not seen.data.endswith(b"0\r\n\r\n"):
            seen.data += sock.recv(65536)
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n"
        )
        sock.recv(10)

    sandbox, origin = start(serve)
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(
        f"POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        + b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    answer = read_all(sock)
    assert answer.endswith(b"3\r\nabc\r\n0\r\n\r\n")
    assert b"5\r\nhello\r\n0\r\n\r\n" in origin.seen[0].data
    assert b"ext" not in origin.seen[0].data
    assert b"railer" not in origin.seen[0].data


@pytest.mark.parametrize("body", [b"zz\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"-1\r\n\r\n"])
def test_http_3_bad_chunks_end_the_exchange(start: Start, body: bytes) -> None:
    sandbox, origin = start(swallow)
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(f"POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body)
    assert b"not framed as its head says" in read_all(sock)
    assert all(not seen.data.endswith(b"0\r\n\r\n") for seen in origin.seen)


def test_half_a_body_ends_the_exchange(start: Start) -> None:
    sandbox, origin = start(swallow)
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(f"POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 10\r\n\r\nhalf".encode())
    assert origin.accepted.acquire(timeout=10)
    sock.shutdown(socket.SHUT_WR)
    assert b"the client broke off" in read_all(sock)
    assert origin.seen[0].ended.wait(10)
    event = sandbox.log.wait(lambda event: event.kind == "request")
    assert (event.status, event.sent_bytes) == (400, 4)  # what left is no refusal
    assert "the client broke off" in (event.reason or "")
    assert not [event for event in sandbox.log.events if event.kind == "refuse"]


def test_a_request_that_the_end_of_the_sandbox_cuts_is_written(tmp_path: Path) -> None:
    origin = Origin(swallow)
    with Harness(plan(rule(NAME), hosts={NAME: ("127.0.0.1", origin.port)}), directory=tmp_path) as sandbox:
        sock = sandbox.dial_name(NAME, 80)
        sock.sendall(f"POST /last HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 6\r\n\r\nsecret".encode())
        assert origin.accepted.acquire(timeout=10)
        while b"secret" not in origin.seen[0].data:
            time.sleep(0.01)
    event = sandbox.log.wait(lambda event: event.kind == "request")
    assert (event.host, event.path, event.status, event.sent_bytes) == (NAME, "/last", None, 6)
    origin.close()


def test_expect_100_continue_is_answered_here(start: Start) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(
        f"POST / HTTP/1.1\r\nHost: {NAME}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode()
    )
    assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"hi")
    assert read_response(sock).endswith(b"ok")
    assert b"xpect" not in origin.seen[0].data


def test_the_first_byte_of_a_stream_arrives_at_once(start: Start) -> None:
    def serve(seen: Seen, sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        seen.ended.wait(10)  # until the client has had the first event
        sock.sendall(b"data: 2\n\n")

    sandbox, origin = start(serve)
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(extra="Connection: close\r\n"))
    received = b""
    while b"data: 1\n\n" not in received:
        received += sock.recv(1000)
    origin.seen[0].ended.set()
    assert b"data: 2\n\n" in read_all(sock)


def test_a_response_whose_head_arrives_alone_is_whole(start: Start) -> None:
    def serve(seen: Seen, sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        seen.ended.wait(0.05)
        sock.sendall(b"body")

    sandbox, _ = start(serve)
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    assert read_response(sock).endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"both"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", b"more than one"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"nobody asked"),
        (b"nonsense\r\n\r\n", b"bad status line"),
        (b"", b"closed the connection"),
    ],
)
def test_a_bad_response_is_a_502(start: Start, response: bytes, reason: bytes) -> None:
    sandbox, _ = start(respond(response))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    page = read_all(sock)
    assert page.startswith(b"HTTP/1.1 502 ")
    assert reason in page


def test_a_hanging_upstream_is_a_504_in_time(start: Start) -> None:
    sandbox, _ = start(swallow, deadlines=Deadlines(head_s=5, response_s=0.2))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    assert read_all(sock).startswith(b"HTTP/1.1 504 ")


def test_a_cut_response_is_not_made_whole(start: Start) -> None:
    sandbox, _ = start(respond(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    assert read_all(sock).endswith(b"\r\n\r\nhalf")  # and the end of the stream
    assert (
        sandbox.log.wait(lambda event: event.kind == "request").reason
        == "cut short: the upstream's answer is not strict HTTP/1.1: the body is shorter than declared"
    )


def test_a_slow_head_ends(start: Start) -> None:
    sandbox, _ = start(respond(OK), deadlines=Deadlines(head_s=0.2))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(b"GET / HT")
    assert read_all(sock).startswith(b"HTTP/1.1 408 ")
    assert read_all(sandbox.dial_name(NAME, 80)) == b""
    assert read_all(sandbox.dial_name(NAME, 443)) == b""


KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
).decode()
UPGRADE = (
    f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
)


def _websocket(accept: str) -> Serve:
    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n\x81\x05hello"
        )
        while data := sock.recv(100):
            seen.data += data
            masked = data[6:]
            sock.sendall(
                b"\x81" + bytes([len(masked)]) + bytes(b ^ data[2 + i % 4] for i, b in enumerate(masked))
            )

    return serve


def test_a_websocket_is_switched_to(start: Start) -> None:
    sandbox, origin = start(_websocket(ACCEPT))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(extra=UPGRADE))
    received = b""
    while not received.endswith(b"hello"):
        received += sock.recv(1000)
    assert received.startswith(b"HTTP/1.1 101 ")
    sock.sendall(b"\x81\x86\0\0\0\0frames")
    assert sock.recv(100) == b"\x81\x06frames"
    assert b"upgrade: websocket" in bytes(origin.seen[0].data).lower()


def test_http_6_a_wrong_accept_key_is_a_502(start: Start) -> None:
    sandbox, _ = start(_websocket("AAAA"))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(extra=UPGRADE))
    assert read_all(sock).startswith(b"HTTP/1.1 502 ")


def test_http_6_bytes_after_a_refused_upgrade_are_a_request_to_be_judged(start: Start) -> None:
    sandbox, origin = start(respond(OK, OK))
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get(extra=UPGRADE) + get(host=OTHER))
    answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 403 " in answer
    assert b"other" not in origin.seen[0].data


def test_the_proxy_judges_each_absolute_request_by_its_own_host(start: Start) -> None:
    sandbox, origin = start(respond(OK, OK))
    sock = sandbox.proxy()
    for host in (NAME, OTHER):
        sock.sendall(get(f"http://{host}/x?y", host=host, extra="Proxy-Authorization: Basic eDp5\r\n"))
        assert read_response(sock).endswith(b"ok")
    assert [bytes(seen.data).split(b"\r\n")[:2] for seen in origin.seen] == [
        [b"GET /x?y HTTP/1.1", f"Host: {host}".encode()] for host in (NAME, OTHER)
    ]
    assert all(b"roxy" not in seen.data for seen in origin.seen)
    sock.sendall(get("http://evil.example.com/", host="evil.example.com"))
    assert b"403 Refused by cloister" in read_all(sock)


def test_the_proxy_explains_itself_to_a_direct_request(start: Start) -> None:
    sandbox, _ = start(respond(OK))
    sock = sandbox.proxy()
    sock.sendall(get(host="127.0.0.1:3128"))
    assert b"this is cloister's HTTP proxy" in read_all(sock)


@pytest.mark.parametrize(
    "target", ["evil.example.com:443", "192.0.2.1:443", "origin.example.com:22", "2130706433:80"]
)
def test_a_refused_connect_says_why_in_its_status_line(start: Start, target: str) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.proxy()
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert read_all(sock).startswith(b"HTTP/1.1 403 Refused by cloister: ")
    assert sandbox.log.refusal().via == "proxy"
    assert not origin.seen


def test_a_refused_connect_of_libcurl_gets_the_page_inside_the_tunnel(start: Start) -> None:
    sandbox, _ = start(respond(OK))
    sock = sandbox.proxy()
    target = "evil.example.com:443"
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: git/2.39\r\n\r\n".encode())
    assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    with sandbox.trusting().wrap_socket(sock, server_hostname="evil.example.com") as tls:
        tls.sendall(get(host="evil.example.com"))
        assert b'no rule grants "evil.example.com:443"' in read_all(tls)
    assert [event.kind for event in sandbox.log.events] == ["refuse"]


@pytest.mark.parametrize(
    "inside", [b"", b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n"]
)
def test_nothing_passes_a_tunnel_that_was_opened_to_refuse(start: Start, inside: bytes) -> None:
    sandbox, origin = start(respond(OK))
    sock = sandbox.proxy()
    sock.sendall(f"CONNECT {NAME}:81 HTTP/1.1\r\nHost: {NAME}:81\r\nUser-Agent: curl/8\r\n\r\n".encode())
    assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    sock.sendall(inside)
    sock.shutdown(socket.SHUT_WR)
    read_all(sock)
    assert sandbox.log.refusal().port == 81
    assert not origin.seen


def test_json_for_those_who_ask(start: Start) -> None:
    sandbox, _ = start(respond(OK))
    sock = sandbox.dial("192.0.2.1", 80)
    sock.sendall(get(host=NAME, extra="Accept: application/vnd.npm.install-v1+json; q=1.0, */*\r\n"))
    head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert b"content-type: application/json\r\n" in head
    page = json.loads(body)
    assert page["refused_by"] == "cloister"
    assert "dialled by address" in page["error"]


def test_an_upstream_that_refuses_is_a_502(tmp_path: Path) -> None:
    closed = Origin()
    closed.close()
    compiled = plan(rule(NAME), hosts={NAME: ("127.0.0.1", closed.port)})
    with Harness(compiled, directory=tmp_path) as sandbox:
        sock = sandbox.dial_name(NAME, 80)
        sock.sendall(get())
        assert b"connecting to origin.example.com failed: connection refused" in read_all(sock)


def test_nothing_new_leaves_while_the_audit_log_cannot_be_written(start: Start) -> None:
    sandbox, origin = start(respond(OK))
    sandbox.log.failure = OSError(28, "no space")
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    assert b"the audit log cannot be written" in read_all(sock)
    assert not origin.seen
    sandbox.log.failure = None
    sock = sandbox.dial_name(NAME, 80)
    sock.sendall(get())
    assert read_response(sock).endswith(b"ok")
