"""What an agent, or a host that it may speak to, would try to get at a credential, or to take the gateway down."""

from __future__ import annotations

import gzip
import html
import os
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from tests.fakes.origin import Seen, Serve, respond
from tests.unit.gateway.test_http_end_to_end import ACCEPT, UPGRADE
from tests.unit.gateway.test_interception import (
    NAME,
    OK,
    OTHER,
    PLACEHOLDER,
    REPLACE,
    SECRET,
    Start,
    get,
    read_answer,
    start,
)

__all__ = ["start"]  # the fixture
VALUE = SECRET.encode()


def answer(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body)


@pytest.mark.parametrize(
    "echo",
    [
        SECRET.encode("utf-16-le"),
        SECRET.encode("utf-16-be"),
        SECRET.encode("utf-16"),
        SECRET.replace("+", "\\u002B").encode(),
        html.escape(SECRET).encode(),
        SECRET.replace("/", "&#x2F;").encode(),
        b'{"headers": {"Authorization": "Bearer ' + VALUE.replace(b"/", b"\\/") + b'"}}',
    ],
)
def test_id_9_other_spellings(start: Start, echo: bytes) -> None:
    made = start(respond(answer(b"<<" + echo + b">>"))).ask(get())
    assert echo not in made
    assert made.endswith(b">>")


@pytest.mark.parametrize("split", range(1, 12))
def test_id_9_split_anywhere(start: Start, split: int) -> None:
    parts = [VALUE[at : at + split] for at in range(0, len(VALUE), split)]
    body = b"".join(b"%x;%b\r\n%b\r\n" % (len(part), VALUE, part) for part in parts) + b"0\r\n\r\n"
    made = start(respond(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)).ask(get())
    assert VALUE not in b"".join(made.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
    assert VALUE not in made
    assert b"*" in made


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 " + VALUE + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: " + VALUE + b"\r\n\r\n" + OK,
        b"HTTP/1.1 302 Found\r\nLocation: https://x/?t=sesame%2Fopen%2B1234567890\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nETag: "' + VALUE + b'"\r\n\r\n',
        b"HTTP/1.1 204 No Content\r\nX-Echo: " + VALUE + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: " + VALUE + b"\r\nConnection: upgrade\r\n\r\n" + VALUE,
        b"HTTP/1.1 500 No\r\nSet-Cookie: a=" + VALUE + b"\r\nContent-Length: 22\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: x-own\r\nContent-Length: 22\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip, gzip\r\nContent-Length: 22\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: " + VALUE + b"\r\n\r\n",
        VALUE + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + VALUE + b"\r\n\r\n",
    ],
)
def test_id_9_wherever_a_response_may_carry_it(start: Start, response: bytes) -> None:
    world = start(respond(response))
    connection = world.tls()
    connection.sendall(get(extra="TE: trailers\r\nConnection: close\r\n"))
    made = b""
    try:
        while part := connection.recv(65536):
            made += part
    except OSError:
        made += b"<cut>"
    assert VALUE not in made
    assert b"sesame" not in made
    world.sandbox.log.wait(lambda event: event.kind in ("request", "refuse"))
    assert SECRET not in str(world.sandbox.log.events)


def test_id_9_in_the_name_of_a_header(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_TEST_SECRET", "ghp_AbCdEfGhIjKl0123456789")
    made = start(respond(answer(b"ok", b"X-ghp_AbCdEfGhIjKl0123456789: 1"))).ask(get())
    assert made.endswith(b"ok")
    assert b"abcdefghijkl" not in made.lower()


def test_id_9_a_stream_that_is_older_than_the_value(start: Start) -> None:
    """A request that gets no credential opens a stream; then another one brings the value to the host."""
    second = threading.Event()

    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        if b"GET /log" in seen.data:
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n")
            second.wait(10)
            sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(VALUE), VALUE))
        else:
            sock.sendall(OK)
        sock.recv(10)

    binding = {"reach": "exact", "name": NAME, "ports": [443], "paths": ["/v1/**"],
               "inject": {"kind": "header", "name": "authorization", "template": "Bearer {}"}}  # fmt: skip
    world = start(serve, more={"bindings": [binding]})
    stream = world.tls()
    stream.sendall(get("/log"))
    data = b""
    while b"\r\n.\r\n" not in data:
        data += stream.recv(65536)
    assert world.ask(get("/v1/x")).endswith(b"ok")
    assert VALUE in world.seen
    second.set()
    while not data.endswith(b"0\r\n\r\n"):
        data += stream.recv(65536)
    assert VALUE not in data
    assert b"*" * len(VALUE) in data


def _switched(*frames: bytes, then: Callable[[socket.socket], object] | None = None) -> Serve:
    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"X-Echo: "
            + VALUE
            + b"\r\nSec-WebSocket-Accept: "
            + ACCEPT.encode()
            + b"\r\n\r\n"
            + b"".join(frames)
        )
        if then is not None:
            then(sock)
        while data := sock.recv(65536):
            seen.data += data

    return serve


def frame(code: int, payload: bytes, *, last: bool = True, masked: bool = False) -> bytes:
    head = bytes([code | (0x80 if last else 0), len(payload) | (0x80 if masked else 0)])
    return head + (b"\0\0\0\0" if masked else b"") + payload


CLOSE = frame(8, struct.pack("!H", 1000))


@pytest.mark.parametrize(
    "frames",
    [
        (frame(9, VALUE), CLOSE),
        (frame(10, VALUE), CLOSE),
        (frame(8, struct.pack("!H", 1000) + VALUE),),
        (frame(1, VALUE[:9], last=False), frame(9, VALUE), frame(0, VALUE[9:]), CLOSE),
        (
            *(frame(1 if not at else 0, bytes([byte]), last=False) for at, byte in enumerate(VALUE)),
            frame(0, b""),
            CLOSE,
        ),
        (frame(2, VALUE.hex().encode()), CLOSE),
        (frame(3, VALUE), CLOSE),
        (frame(0x41, VALUE), CLOSE),
        (VALUE,),
    ],
)
def test_id_9_a_websocket_in_every_kind_of_frame(start: Start, frames: tuple[bytes, ...]) -> None:
    world = start(_switched(*frames))

    connection = world.tls()
    connection.sendall(get(extra=UPGRADE))
    data = b""
    connection.settimeout(3)
    try:
        while part := connection.recv(65536):
            data += part
            if frame(8, b"")[:1] in data[-200:]:
                connection.sendall(frame(8, struct.pack("!H", 1000), masked=True))
    except OSError:
        pass
    assert data.startswith(b"HTTP/1.1 101 ")
    assert VALUE not in data
    assert VALUE[:9] not in data
    assert VALUE.hex().encode() not in data


def test_a_websocket_whose_other_side_never_closes_ends(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.gateway.http import websocket

    monkeypatch.setattr(websocket, "CLOSE_S", 0.3)
    world = start(_switched())
    connection = world.tls()
    connection.sendall(get(extra=UPGRADE))
    assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
    connection.sendall(frame(8, struct.pack("!H", 1000), masked=True))
    event = world.sandbox.log.wait(lambda event: event.kind == "request")
    assert event.reason == "a side did not close"


def test_av_1_websockets_leave_no_descriptors(start: Start) -> None:
    world = start(_switched(frame(1, b"hi"), CLOSE))
    before = 0
    for number in range(12):
        connection = world.tls()
        connection.sendall(get(extra=UPGRADE))
        while not connection.recv(65536).endswith(CLOSE):
            pass
        connection.sendall(frame(8, struct.pack("!H", 1000), masked=True))
        connection.close()
        if number == 1:
            before = len(os.listdir("/proc/self/fd"))
    deadline = time.monotonic() + 5
    for sock in world.origin._sockets:  # the origin's own are none of the gateway's
        sock.close()
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_compressed_body_with_a_placeholder_is_what_its_head_says(start: Start) -> None:
    world = start(inject=REPLACE)
    body = gzip.compress(b"a=" + PLACEHOLDER.encode())
    world.ask(get(method="POST", extra="Content-Encoding: gzip\r\n", body=body))
    head, _, sent = world.seen.partition(b"\r\n\r\n")
    assert sent == b"a=" + VALUE
    assert b"content-encoding" not in head.lower()


def test_a_push_in_an_unknown_encoding_is_refused(start: Start) -> None:
    world = start(push=("refs/heads/agent/*",))
    made = world.ask(
        get("/a/b.git/git-receive-pack", method="POST", extra="Content-Encoding: own\r\n", body=b"0000")
    )
    assert made.startswith(b"HTTP/1.1 200 ")
    assert not world.origin.seen
    assert "cannot be judged" in (world.sandbox.log.refusal().reason or "")


def test_av_1_a_bomb_in_a_request_does_not_stop_others(start: Start) -> None:
    bomb = gzip.compress(gzip.compress(b"%41" * (20 << 20), 9), 9)
    world = start(respond(OK))
    first, second = world.tls(OTHER), world.tls()
    first.sendall(get(host=OTHER, method="POST", extra="Content-Encoding: gzip, gzip\r\n", body=bomb))
    time.sleep(0.2)
    begun = time.monotonic()
    second.sendall(get())
    assert read_answer(second).endswith(b"ok")
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL"])
def test_http_4_a_path_that_a_header_would_replace(start: Start, header: str) -> None:
    world = start()
    world.ask(get("/public", extra=f"{header}: /admin\r\n"))
    assert b"/admin" not in world.seen


def test_av_1_a_rest_that_trickles_in_does_not_keep_a_connection(start: Start) -> None:
    def serve(seen: Seen, sock: socket.socket) -> None:
        seen.data += sock.recv(65536)
        sock.sendall(OK)
        sock.recv(10)

    world = start(serve)
    connection = world.tls()
    connection.sendall(f"DELETE / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 60000\r\n\r\n".encode())
    begun, ended = time.monotonic(), False
    connection.settimeout(0.5)
    while not ended and time.monotonic() - begun < 9:
        try:
            connection.sendall(b"x")
            ended = connection.recv(65536) == b""
        except TimeoutError:
            continue
        except OSError:
            ended = True
    assert ended
