"""Streams between two halves, over real pipes: bytes, ends, resets, and a window that holds."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from cloister.outpost import frames
from cloister.outpost.channel import Channel
from cloister.outpost.streams import WINDOW_BYTES, Streams, pair


class Half:
    """One half: a channel whose frames all go to its streams."""

    def __init__(self, reading: int, writing: int) -> None:
        self.end: list[str] = []
        self.channel = Channel(
            reading, writing, limit_bytes=1 << 16, hear=lambda frame: self.streams.hear(frame), ended=self.end.append
        )  # fmt: skip
        self.streams = Streams(self.channel)


def halves() -> tuple[Half, Half]:
    one, other = os.pipe(), os.pipe()
    return Half(one[0], other[1]), Half(other[0], one[1])


def run(test: Callable[[Half, Half], Awaitable[None]]) -> None:
    async def main() -> None:
        here, there = halves()
        try:
            async with asyncio.timeout(30):
                await test(here, there)
        finally:
            for half in (here, there):
                half.streams.close()
                half.channel.close()

    asyncio.run(main())


async def read_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    found = bytearray()
    while part := await loop.sock_recv(sock, 1 << 16):
        found += part
    return bytes(found)


def test_large_bodies_both_ways_with_half_closes() -> None:
    async def test(here: Half, there: Half) -> None:
        loop = asyncio.get_running_loop()
        (client, near), (far, server) = pair(), pair()
        here.streams.join(2, near)
        there.streams.join(2, far)
        first, second = os.urandom(3_000_000), os.urandom(5_000_000)

        async def serve() -> None:
            assert hashlib.sha256(await read_all(server)).digest() == hashlib.sha256(first).digest()
            await loop.sock_sendall(server, second)
            server.close()

        serving = asyncio.create_task(serve())
        await loop.sock_sendall(client, first)
        client.shutdown(socket.SHUT_WR)
        assert await read_all(client) == second
        await serving
        client.close()
        while len(here.streams) or len(there.streams):
            await asyncio.sleep(0)

    run(test)


def test_a_reset_passes_on_as_a_reset() -> None:
    async def test(here: Half, there: Half) -> None:
        (client, near), (far, server) = pair(), pair()
        here.streams.join(2, near)
        there.streams.join(2, far)
        there.streams.drop(2, tell=True)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(client, 1)
        client.close()
        server.close()

    run(test)


def test_a_stream_that_stands_still_holds_up_no_other_one_and_is_bounded() -> None:
    async def test(here: Half, there: Half) -> None:
        loop = asyncio.get_running_loop()
        stuck, other = (pair(), pair()), (pair(), pair())
        for number, (client, server) in ((2, stuck), (4, other)):
            here.streams.join(number, client[1])
            there.streams.join(number, server[0])
        flood = asyncio.create_task(
            loop.sock_sendall(stuck[0][0], bytes(64 << 20))
        )  # nobody reads at its end
        await loop.sock_sendall(other[0][0], b"ping")
        assert await loop.sock_recv(other[1][1], 100) == b"ping"
        for _ in range(2000):
            await asyncio.sleep(0)
        assert not flood.done(), "it was all taken"
        assert len(there.streams.joined[2]._owed) <= WINDOW_BYTES
        flood.cancel()

    run(test)


@pytest.mark.parametrize(
    "frame",
    [frames.Data(2, bytes(WINDOW_BYTES + 1)), {"op": "credit", "stream": 2, "bytes": 1}, {"op": "credit", "stream": 2, "bytes": -1},
     {"op": "what", "stream": 2}],
)  # fmt: skip
def test_who_breaks_the_window_breaks_the_protocol(frame: frames.Message | frames.Data) -> None:
    async def test(here: Half, _: Half) -> None:
        client, near = pair()
        here.streams.join(2, near)
        with pytest.raises(frames.FrameError):
            here.streams.hear(frame)
        client.close()

    run(test)


def test_frames_of_a_stream_that_has_ended_are_dropped() -> None:
    async def test(here: Half, _: Half) -> None:
        here.streams.hear(frames.Data(8, b"late"))
        here.streams.hear({"op": "done", "stream": 8})

    run(test)


def test_the_end_of_the_channel_is_told_once() -> None:
    async def test(here: Half, there: Half) -> None:
        there.channel.close()
        while not here.end:
            await asyncio.sleep(0)
        here.channel.send({"op": "nothing"})
        assert here.end == [""]

    run(test)
