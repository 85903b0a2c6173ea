"""Reading from sockets: nothing is lost, nothing is read too early, whoever gives up waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable

import pytest

from cloister.gateway.tls import TlsWire
from cloister.gateway.wire import SCRATCH_BYTES, SocketWire
from tests.fakes.origins import Authority

DEADLINE_S = 5.0


def with_wire(test: Callable[[SocketWire, socket.socket], Awaitable[None]]) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        wire = SocketWire(ours)
        with peer:
            async with asyncio.timeout(DEADLINE_S):
                await test(wire, peer)
        wire.close()

    asyncio.run(main())


def test_what_came_as_the_wait_was_given_up_is_the_next_readers() -> None:
    async def test(wire: SocketWire, peer: socket.socket) -> None:
        first = asyncio.create_task(wire.receive(100))
        await asyncio.sleep(0)
        peer.sendall(b"GET /")
        while not first.done():  # until the bytes have been read for it, and no step later
            await asyncio.sleep(0)
            if wire.sock.fileno() >= 0 and not _readable(wire.sock):
                first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await first == b"GET /"
            pytest.fail("it was not cancelled in time")
        assert not wire.stale() or wire._returned == b"GET /"
        peer.sendall(b" HTTP/1.1")
        assert await wire.receive(100) == b"GET /"
        assert await wire.receive(100) == b" HTTP/1.1"

    with_wire(test)


def test_what_was_read_for_nobody_goes_with_the_socket() -> None:
    async def test(wire: SocketWire, peer: socket.socket) -> None:
        wire._returned = b"early"
        assert wire.stale()
        wire.detach().close()
        assert bytes(wire.buffer) == b"early"

    with_wire(test)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    async def test(wire: SocketWire, peer: socket.socket) -> None:
        peer.sendall(b"a")
        assert await wire.receive(100) == b"a"
        peer.sendall(b"b")
        for _ in range(5):
            await asyncio.sleep(0)
        assert _readable(wire.sock)
        assert await wire.receive(100) == b"b"

    with_wire(test)


def test_no_more_than_was_asked_for() -> None:
    async def test(wire: SocketWire, peer: socket.socket) -> None:
        peer.setblocking(False)
        sent = peer.send(b"x" * (2 * SCRATCH_BYTES))
        parts: list[bytes] = []
        while sum(len(part) for part in parts) < sent:
            parts.append(await wire.receive(7000))
        assert max(len(part) for part in parts) == 7000

    with_wire(test)


def test_an_error_reaches_who_waits() -> None:
    async def test(wire: SocketWire, peer: socket.socket) -> None:
        del peer
        listener = socket.create_server(("127.0.0.1", 0))
        theirs = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        listener.close()
        accepted.setblocking(False)
        over_tcp = SocketWire(accepted)
        waiting = asyncio.create_task(over_tcp.receive(100))
        await asyncio.sleep(0)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            await waiting
        over_tcp.close()

    with_wire(test)


@pytest.mark.parametrize("goodbye", [True, False], ids=["close_notify", "cut"])
def test_the_end_of_a_tls_stream_is_known_for_what_it_is(authority: Authority, *, goodbye: bool) -> None:
    async def test(wire: SocketWire, peer: socket.socket) -> None:
        tls = TlsWire(wire, authority.context(("api.example.com",)))
        client = ssl.create_default_context(cadata=authority.pem)

        def speak() -> None:
            peer.setblocking(True)
            peer.settimeout(DEADLINE_S)
            with client.wrap_socket(peer, server_hostname="api.example.com") as speaker:
                speaker.sendall(b"x" * 600_000)
                if goodbye:
                    with contextlib.suppress(OSError, ssl.SSLError):
                        speaker.unwrap()
                else:
                    speaker.shutdown(socket.SHUT_WR)
                assert heard.wait(DEADLINE_S)  # closing with something unread would be a reset

        heard = threading.Event()
        speaking = asyncio.create_task(asyncio.to_thread(speak))
        await tls.handshake()
        size = 0
        while await tls.more():
            size += len(tls.buffer)
            tls.buffer.clear()
        assert (size, tls.truncated) == (600_000, not goodbye)
        assert not await tls.more()
        assert (tls.truncated, tls.stale()) == (not goodbye, True)
        heard.set()
        tls.close()
        await speaking

    with_wire(test)


@pytest.mark.parametrize("goodbye", [True, False], ids=["close_notify", "cut"])
def test_more_waits_for_more_though_something_is_left(authority: Authority, *, goodbye: bool) -> None:
    """AV-1: half a head over TLS, and then nothing, kept the whole gateway busy for ever."""

    async def test(wire: SocketWire, peer: socket.socket) -> None:
        tls = TlsWire(wire, authority.context(("api.example.com",)))
        client = ssl.create_default_context(cadata=authority.pem)
        peer.settimeout(DEADLINE_S)
        connecting = asyncio.create_task(
            asyncio.to_thread(client.wrap_socket, peer, server_hostname="api.example.com")
        )
        await tls.handshake()
        with await connecting as speaker:
            speaker.sendall(b"GET / HT")
            assert await tls.more()
            waiting = asyncio.create_task(tls.more())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            speaker.sendall(b"TP/1.1\r\n")
            assert await waiting
            assert bytes(tls.buffer) == b"GET / HTTP/1.1\r\n"
            ending = asyncio.create_task(asyncio.to_thread(_end, speaker, goodbye=goodbye))
            assert not await tls.more()
            assert bytes(tls.buffer) == b"GET / HTTP/1.1\r\n"
            tls.close()
            await ending

    with_wire(test)


def _end(speaker: ssl.SSLSocket, *, goodbye: bool) -> None:
    with contextlib.suppress(OSError):
        if goodbye:
            speaker.unwrap()
        else:
            speaker.shutdown(socket.SHUT_WR)


def _readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()
