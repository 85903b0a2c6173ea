"""Clients that leave before they are answered: the upstream is given up, and the log says why (AV-2)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import h2.config
import h2.connection
import pytest

from cloister.gateway.departures import Departures
from cloister.gateway.services import Deadlines
from tests.fakes.origin import Seen, Serve
from tests.unit.gateway import test_interception
from tests.unit.gateway.harness import DEADLINE_S, read_all
from tests.unit.gateway.test_credential_attacks import fields
from tests.unit.gateway.test_http_end_to_end import ACCEPT, UPGRADE
from tests.unit.gateway.test_interception import FREE, NAME, Start, World, get

start = test_interception.start
FOR_EVER_S = 600.0
LEFT = "cut short: the client left"
EVENT = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
)


Make = Callable[[threading.Event], Serve]  # the event: the request's head has come


def says(*first: bytes) -> Make:
    """An origin that sends this after the request's head, and then waits for the gateway to end."""

    def listen(seen: Seen, sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while data := sock.recv(65536):
                seen.data += data
        seen.ended.set()

    return lambda heard: lambda seen, sock: _answer(heard, first, seen, sock, listen)


def takes_nothing(*first: bytes) -> Make:
    """An origin that sends this after the request's head, and reads no more."""

    def wait(seen: Seen, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock.fileno(), 0)  # errors and hang-ups alone
        if poll.poll(DEADLINE_S * 1000):
            seen.ended.set()

    return lambda heard: lambda seen, sock: _answer(heard, first, seen, sock, wait)


def _answer(
    heard: threading.Event, first: tuple[bytes, ...], seen: Seen, sock: socket.socket, then: Serve
) -> None:
    while b"\r\n\r\n" not in seen.data:
        seen.data += sock.recv(4096)
    heard.set()
    for part in first:
        sock.sendall(part)
    then(seen, sock)


def closes(sock: socket.socket) -> None:
    sock.close()


def resets(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def closes_behind_another_request(sock: socket.socket) -> None:
    with contextlib.suppress(TimeoutError, BlockingIOError, ssl.SSLWantWriteError):
        sock.sendall(get("/next"))
    sock.close()


def fill(sock: socket.socket, first: bytes) -> None:
    """Send until nobody takes any more."""
    sock.sendall(first)
    sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            sock.sendall(b"\0" * 65536)


UPLOAD = b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 1000000000\r\n\r\n"
FRAME = b"\x82\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0"  # of a message that will be long


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How far an exchange has come: what was asked, and what of the answer the client has."""

    request: bytes
    origin: Make
    answer: bytes = b""
    body: bytes | None = None  # and then more than the upstream takes


STAGES = {
    "before the head": Stage(request=get(), origin=says()),
    "within a quiet stream of events": Stage(request=get(), origin=says(EVENT), answer=b"data: 1\n\n"),
    "an upload that is not taken": Stage(request=UPLOAD, origin=takes_nothing(), body=b""),
    "a WebSocket": Stage(request=get(extra=UPGRADE), origin=says(SWITCHED), answer=b" 101 "),
    "a WebSocket that is not taken": Stage(
        request=get(extra=UPGRADE), origin=takes_nothing(SWITCHED), answer=b" 101 ", body=FRAME
    ),
}
WAYS = [
    (name, leave)
    for name, stage in STAGES.items()
    for leave in (closes, resets, closes_behind_another_request)
    if stage.body is None or leave is resets  # the end stands behind what nobody takes, and does not arrive
]


@pytest.mark.parametrize(("name", "leave"), WAYS)
def test_av_2_a_client_that_left_is_not_waited_for(
    start: Start, name: str, leave: Callable[[socket.socket], None]
) -> None:
    """The upstream was waited for: up to ten minutes, or for as long as it liked."""
    stage, heard = STAGES[name], threading.Event()
    ended_s = FOR_EVER_S if leave is resets else 0.3
    world = start(stage.origin(heard), deadlines=Deadlines(head_s=5.0, ended_s=ended_s))
    connection = world.tls()
    connection.sendall(stage.request)
    assert heard.wait(DEADLINE_S)
    data = b""
    while stage.answer not in data:
        data += connection.recv(65536)
    if stage.body is not None:
        fill(connection, stage.body)
    leave(connection)
    assert world.origin.seen[0].ended.wait(DEADLINE_S)
    event = world.sandbox.log.wait(lambda event: event.kind == "request")
    assert event.reason in {LEFT, "a side went without a close"}
    assert len([one for one in world.sandbox.log.events if one.kind == "request"]) == 1
    assert b"/next" not in world.seen


def test_av_2_a_reset_of_http_2_says_who_left(start: Start) -> None:
    heard = threading.Event()
    world = start(says()(heard))
    context = world.sandbox.trusting()
    context.set_alpn_protocols(["h2"])
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
    client.initiate_connection()
    client.send_headers(1, fields(), end_stream=True)
    with context.wrap_socket(world.sandbox.dial_name(NAME, 443), server_hostname=NAME) as connection:
        connection.sendall(client.data_to_send())
        assert heard.wait(DEADLINE_S)
        client.reset_stream(1)
        connection.sendall(client.data_to_send())
        assert world.origin.seen[0].ended.wait(DEADLINE_S)
    event = world.sandbox.log.wait(lambda event: event.kind == "request")
    assert event.reason == LEFT


def half_closed(start: Start, scheme: str, serve: Serve, *, ended_s: float) -> tuple[World, socket.socket]:
    """A client that has sent one request and ended its stream."""
    secure = scheme == "https"
    world = start(serve, deadlines=Deadlines(head_s=5.0, ended_s=ended_s), secure=secure)
    sock = world.tls() if secure else world.sandbox.dial_name(FREE, 80)
    sock.sendall(get(host=NAME if secure else FREE, extra="Connection: close\r\n"))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    socket.socket.shutdown(sock, socket.SHUT_WR)
    return world, sock


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_has_only_ended_its_stream_is_answered_as_long_as_something_comes(
    start: Start, scheme: str
) -> None:
    """`nc -N` does so, and RFC 9112 lets it. All takes longer than the limit, each part less."""

    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        parts = [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", b"a", b"b", b"c"]
        for part in parts:
            time.sleep(0.7)  # what is tested is a time
            sock.sendall(part)

    _, sock = half_closed(start, scheme, serve, ended_s=2.0)
    assert read_all(sock).endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_has_only_ended_its_stream_may_read_slowly(start: Start, scheme: str) -> None:
    size = 24 << 20  # more than the buffers of four sockets
    begun = threading.Event()

    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        begun.set()
        sock.sendall(b"x" * size)

    world, sock = half_closed(start, scheme, serve, ended_s=1.0)
    assert begun.wait(DEADLINE_S)
    time.sleep(2.5)  # what is tested is a time
    data = bytearray()
    while not any(event.kind == "request" for event in world.sandbox.log.events):
        data += sock.recv(1 << 16)
    assert [event.reason for event in world.sandbox.log.events if event.kind == "request"] == [None]
    time.sleep(0.3)  # all has been sent, and the last of it waits in the gateway's buffer
    assert len((bytes(data) + read_all(sock)).partition(b"\r\n\r\n")[2]) == size


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_end_of_a_whole_answer_is_no_departure(start: Start, scheme: str) -> None:
    """Both sides have ended then, which epoll calls a hang-up: a reset would take what is not read yet away."""
    size = 2 << 20

    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        sock.sendall(b"x" * size)

    secure = scheme == "https"
    world = start(serve, deadlines=Deadlines(head_s=5.0), secure=secure)
    for _ in range(40):
        sock = world.tls() if secure else world.sandbox.dial_name(FREE, 80)
        sock.sendall(get(host=NAME if secure else FREE, extra="Connection: close\r\n"))
        socket.socket.shutdown(sock, socket.SHUT_WR)
        assert len(read_all(sock).partition(b"\r\n\r\n")[2]) == size


def test_a_number_that_is_another_connections_by_now_stays_watched() -> None:
    async def main() -> None:
        told: list[str] = []
        departures = Departures()
        with contextlib.closing(departures), contextlib.ExitStack() as second:
            ours, theirs = socket.socketpair()
            descriptor = ours.fileno()
            with departures.watched(descriptor, lambda _: told.append("first")):
                ours.close()
                theirs.close()
                other, peer = socket.socketpair()
                if other.fileno() != descriptor:
                    os.dup2(other.fileno(), descriptor)
                second.enter_context(departures.watched(descriptor, lambda _: told.append("second")))
            peer.close()
            async with asyncio.timeout(DEADLINE_S):
                while not told:
                    await asyncio.sleep(0)
            assert told == ["second"]
            other.close()

    asyncio.run(main())
