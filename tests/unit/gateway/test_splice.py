"""The byte pump alone: half-close, back-pressure, resets, bulk, and what an idle one holds."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from cloister.gateway import splice
from cloister.gateway.allowance import Allowance
from cloister.gateway.splice import BULK_BYTES, COPY_BYTES, Splice

DEADLINE_S = 20.0


class Bench:
    """Two TCP connections joined by a splice: `client` and `upstream` are the outer ends."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.loop = asyncio.get_running_loop()
        self.client, inner_client = _pair()
        inner_upstream, self.upstream = _pair()
        self.ended: asyncio.Future[Splice] = self.loop.create_future()
        self.splice = Splice(
            loop=self.loop,
            client=inner_client,
            upstream=inner_upstream,
            allowance=allowance,
            on_end=self.ended.set_result,
        )

    def close(self) -> None:
        self.client.close()
        self.upstream.close()
        self.splice.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def run(test: Callable[[Bench], Awaitable[None]], *, allowed: int = 4) -> None:
    async def main() -> None:
        bench = Bench(Allowance(allowed))
        try:
            async with asyncio.timeout(DEADLINE_S):
                await test(bench)
        finally:
            bench.close()

    asyncio.run(main())


async def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while part := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
        data += part
    return bytes(data)


def test_bytes_both_ways_and_counts() -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start(to_upstream=b"early", to_client=b"greeting")
        assert await bench.loop.sock_recv(bench.upstream, 100) == b"early"
        assert await bench.loop.sock_recv(bench.client, 100) == b"greeting"
        await bench.loop.sock_sendall(bench.client, b"ask")
        assert await bench.loop.sock_recv(bench.upstream, 100) == b"ask"
        await bench.loop.sock_sendall(bench.upstream, b"answer")
        assert await bench.loop.sock_recv(bench.client, 100) == b"answer"
        bench.client.close()
        bench.upstream.close()
        splice = await bench.ended
        assert (splice.sent_bytes, splice.received_bytes) == (8, 14)
        assert splice.error is None

    run(test)


def test_half_close_is_passed_on_and_the_other_way_stays_open() -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start()
        await bench.loop.sock_sendall(bench.client, b"all of it")
        bench.client.shutdown(socket.SHUT_WR)
        assert await read_all(bench.upstream) == b"all of it"
        await bench.loop.sock_sendall(bench.upstream, b"late answer")
        bench.upstream.close()
        assert await read_all(bench.client) == b"late answer"
        assert (await bench.ended).error is None

    run(test)


@pytest.mark.parametrize("from_client", [True, False])
def test_a_reset_is_passed_on_as_one(from_client: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start()
        broken, other = (bench.client, bench.upstream) if from_client else (bench.upstream, bench.client)
        broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        broken.close()
        with pytest.raises(ConnectionResetError):
            await bench.loop.sock_recv(other, 100)
        assert isinstance((await bench.ended).error, ConnectionResetError)

    run(test)


@pytest.mark.parametrize("allowed", [0, 4])
@pytest.mark.parametrize("down", [True, False])
def test_bulk_arrives_whole_with_and_without_an_allowance(allowed: int, down: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start()
        data = os.urandom(1 << 20) * 32
        source, sink = (bench.upstream, bench.client) if down else (bench.client, bench.upstream)

        async def send() -> None:
            await bench.loop.sock_sendall(source, data)
            source.shutdown(socket.SHUT_WR)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            received = group.create_task(read_all(sink))
        assert hashlib.sha256(received.result()).digest() == hashlib.sha256(data).digest()
        count = bench.splice.received_bytes if down else bench.splice.sent_bytes
        assert count == len(data)

    run(test, allowed=allowed)


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_full_sink_stops_the_source_and_nothing_is_lost(allowed: int) -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start()
        piece = bytes(range(256)) * 256
        sent = 0
        try:
            while True:  # until every buffer on the way is full
                async with asyncio.timeout(0.3):
                    sent += await _send_some(bench.loop, bench.upstream, piece[sent % 65536 :])
        except TimeoutError:
            pass
        assert sent < 64 << 20
        held = bench.splice.received_bytes
        assert held <= sent
        bench.upstream.shutdown(socket.SHUT_WR)
        received = await read_all(bench.client)
        assert len(received) == sent
        assert received == (piece * (sent // len(piece) + 1))[:sent]

    run(test, allowed=allowed)


def test_an_idle_splice_holds_no_descriptor_more() -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await bench.loop.sock_sendall(bench.upstream, b"x" * COPY_BYTES * 4)
            left = COPY_BYTES * 4
            while left:
                left -= len(await bench.loop.sock_recv(bench.client, left))
        assert len(os.listdir("/proc/self/fd")) == before
        assert bench.allowance.left == 4

    run(test)


def test_what_waits_is_bounded_whatever_the_sandbox_does() -> None:
    """AV-2: many directions whose sinks are full: as many as are allowed hold much, all others one record."""

    async def test(first: Bench) -> None:
        benches = [first, *(Bench(first.allowance) for _ in range(5))]
        for bench in benches:
            bench.splice.start()
        try:
            for bench in benches:
                await _fill(bench)
            held = sorted(len(bench.splice._down._pending) for bench in benches)
            assert held[0] > 0
            assert first.allowance.left == 0
            assert [size for size in held if size > COPY_BYTES] == held[-2:]
            assert held[-1] <= BULK_BYTES
            for bench in benches:
                bench.upstream.shutdown(socket.SHUT_WR)
                await read_all(bench.client)
            assert first.allowance.left == 2
        finally:
            for bench in benches[1:]:
                bench.close()

    run(test, allowed=2)


def test_close_resets_both_ends_and_gives_the_allowance_back() -> None:
    async def test(bench: Bench) -> None:
        bench.splice.start()
        data = b"x" * (8 << 20)
        sending = asyncio.create_task(bench.loop.sock_sendall(bench.upstream, data))
        await bench.loop.sock_recv(bench.client, 1)
        bench.splice.close()
        bench.splice.close()  # idempotent
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await sending
        assert bench.ended.done()
        assert bench.allowance.left == 1

    run(test, allowed=1)


async def _send_some(loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytes) -> int:
    """One send(2), when the socket takes something."""
    ready: asyncio.Future[None] = loop.create_future()
    try:
        return sock.send(data)
    except BlockingIOError:
        loop.add_writer(sock.fileno(), ready.cancel)
    try:
        await asyncio.wait([ready])
    finally:
        loop.remove_writer(sock.fileno())
    return sock.send(data)


async def _fill(bench: Bench) -> None:
    """Send until something waits in the splice, and the kernel takes no more."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                bench.upstream.send(bytes(1 << 16))
            except BlockingIOError:
                if bench.splice._down._pending:
                    return
            await asyncio.sleep(0)  # the splice's turn


@pytest.mark.parametrize("gone", ["client", "upstream"])
def test_av_1_who_has_left_is_noticed_although_the_other_says_nothing(
    gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end of stream looks like a half-close; that nobody is there any more, the kernel finds out."""
    monkeypatch.setattr(splice, "_LOOK_S", 0.2)
    monkeypatch.setattr(splice, "_KEEPALIVE_IDLE_S", 1)

    async def test(bench: Bench) -> None:
        bench.splice.start()
        leaving = getattr(bench, gone)
        leaving.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)  # else its kernel waits a minute
        leaving.close()
        ended = await bench.ended
        assert isinstance(ended.error, OSError)

    run(test)


def test_a_half_close_lasts_as_long_as_both_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "_LOOK_S", 0.05)
    monkeypatch.setattr(splice, "_KEEPALIVE_IDLE_S", 1)

    async def test(bench: Bench) -> None:
        bench.splice.start()
        bench.client.shutdown(socket.SHUT_WR)
        assert await read_all(bench.upstream) == b""
        looks = 0
        look = Splice._look_at

        def counting(self: Splice, source: socket.socket) -> None:
            nonlocal looks
            looks += 1
            look(self, source)

        monkeypatch.setattr(Splice, "_look_at", counting)
        while looks < 30:  # more than a keepalive's time
            await asyncio.sleep(0.05)
        await bench.loop.sock_sendall(bench.upstream, b"late")
        bench.upstream.close()
        assert await read_all(bench.client) == b"late"
        assert (await bench.ended).error is None

    run(test)
