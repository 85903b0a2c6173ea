"""What is accepted, how much of it at once, and that nothing is left when it is closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from cloister.system.accept import Acceptor

DEADLINE_S = 10.0


async def echo(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, 100):
        await loop.sock_sendall(sock, data)


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    return listener


async def said(path: Path, words: bytes = b"hi") -> tuple[socket.socket, bytes]:
    """A connection, and what comes back of it: nothing if it was closed unread."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, str(path))
    try:
        await loop.sock_sendall(sock, words)
        return sock, await asyncio.wait_for(loop.sock_recv(sock, 100), DEADLINE_S)
    except (BrokenPipeError, ConnectionResetError):
        return sock, b""


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()

    asyncio.run(whole())


def test_more_than_the_limit_are_closed_unread_and_a_place_is_free_again(tmp_path: Path) -> None:
    async def test() -> None:
        acceptor = Acceptor(listening(tmp_path / "s"), echo, limit=2)
        kept = [await said(tmp_path / "s") for _ in range(2)]
        assert [answer for _, answer in kept] == [b"hi", b"hi"]
        refused, answer = await said(tmp_path / "s")
        assert answer == b""
        refused.close()
        kept[0][0].close()
        async with asyncio.timeout(DEADLINE_S):
            while (again := await said(tmp_path / "s"))[1] != b"hi":
                again[0].close()
        again[0].close()
        kept[1][0].close()
        await acceptor.close()

    run(test)


def test_who_is_not_admitted_is_not_served(tmp_path: Path) -> None:
    async def test() -> None:
        acceptor = Acceptor(listening(tmp_path / "s"), echo, limit=2, admit=lambda _: False)
        sock, answer = await said(tmp_path / "s")
        assert answer == b""
        sock.close()
        await acceptor.close()

    run(test)


def test_closing_ends_what_is_served(tmp_path: Path) -> None:
    async def test() -> None:
        acceptor = Acceptor(listening(tmp_path / "s"), echo, limit=2)
        sock, _ = await said(tmp_path / "s")
        with closing(sock):
            await acceptor.close()
            await acceptor.close()
            ended = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100), DEADLINE_S)
            assert ended == b""

    run(test)
