"""HTTP-5: floods and junk over HTTP/2. Each must end the connection, and only that; the control shows what is no flood."""

from __future__ import annotations

import asyncio
import itertools
import socket
import tracemalloc
from collections.abc import Callable

import h2.errors
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from cloister.gateway.http.h2_connection import STREAMS_LIMIT
from cloister.gateway.http.h2_server import H2Downstream
from cloister.gateway.services import Deadlines
from cloister.messages import ResponseHead
from tests.unit.gateway.http.peers import DEADLINE_S, START, RawPeer, Served, fields

OK = ResponseHead(status=200, length=0)
CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


async def answer(down: H2Downstream) -> None:
    while await down.read():
        pass
    await down.send_head(OK, ended=True)


async def attacked(
    served: Served, frames: Callable[[RawPeer], list[Frame | bytes]]
) -> tuple[RawPeer, asyncio.Task[None]]:
    """Send these; the sending may last until the connection ends."""
    peer = RawPeer(served.peer_sock)
    sending = asyncio.create_task(peer.send(*START, *frames(peer)))
    return peer, sending


def ended_with(frames: Callable[[RawPeer], list[Frame | bytes]]) -> int | None:
    """The code of the GOAWAY that answers these frames."""

    async def main() -> int | None:
        served = Served(answer, deadlines=Deadlines(idle_s=5.0))
        peer, sending = await attacked(served, frames)
        await peer.read_to_end()
        sending.cancel()
        await asyncio.wait({sending})
        served.peer_sock.close()
        async with asyncio.timeout(DEADLINE_S):
            await served.task
        assert served.refused
        return peer.goaway

    return asyncio.run(main())


FLOODS: dict[str, Callable[[RawPeer], list[Frame | bytes]]] = {
    "pings": lambda _: [PingFrame(0, b"12345678")] * 5000,
    "settings": lambda _: [SettingsFrame(0, {1: 4096})] * 5000,
    "priorities": lambda _: [PriorityFrame(1, depends_on=0, stream_weight=1)] * 5000,
    "unknown frames": lambda _: [ExtensionFrame(0xF0, 0, body=b"")] * 5000,
    "empty data": lambda peer: [peer.request(1, ended=False), *[DataFrame(1, b"")] * 5000],
    "padding alone": lambda peer: [
        peer.request(1, ended=False),
        *[DataFrame(1, b"", pad_length=1, flags=["PADDED"])] * 5000,
    ],
    "rapid reset": lambda peer: [
        frame
        for number in range(1, 4001, 2)
        for frame in (peer.request(number), RstStreamFrame(number, error_code=8))
    ],
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_http_5_floods_end_the_connection(flood: Callable[[RawPeer], list[Frame | bytes]]) -> None:
    assert ended_with(flood) == CALM


def test_http_5_a_flood_of_continuations() -> None:
    """CVE-2024-27983 and its kin: a head that never ends, in frames that are never shown to anyone."""

    def frames(peer: RawPeer) -> list[Frame | bytes]:
        first = HeadersFrame(1, data=peer.encoder.encode(fields()))
        return [first, *[ContinuationFrame(1, data=b"")] * 100_000]

    assert ended_with(frames) is not None


def test_http_5_a_head_that_unpacks_to_too_much() -> None:
    """A header of 4 KiB in the table, named over and over again by one byte each."""

    def frames(peer: RawPeer) -> list[Frame | bytes]:
        peer.encoder.encode([(b"x", b"y" * 4000)])
        first = peer.encoder.encode([*fields(), (b"x", b"y" * 4000)])
        return [HeadersFrame(1, data=first + b"\xbe" * 10_000, flags=["END_HEADERS", "END_STREAM"])]

    assert ended_with(frames) is not None


def test_http_5_a_head_with_too_many_headers_is_refused_alone() -> None:
    async def main() -> None:
        served = Served(answer)
        peer = RawPeer(served.peer_sock)
        await peer.send(*START, peer.request(1, fields(b"/", *[(b"x", b"y")] * 1000)))
        await peer.read_until(lambda: any(isinstance(frame, HeadersFrame) for frame in peer.frames))
        assert "too many HTTP headers" in served.refused[0]
        await served.end()

    asyncio.run(main())


def test_more_streams_than_allowed_at_once() -> None:
    """The limit that we have announced; before that is acknowledged, the one that h2 assumes."""
    most = 0

    async def main() -> None:
        nonlocal most
        running = 0

        async def handler(_: H2Downstream) -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(60)
            finally:
                running -= 1

        served = Served(handler)
        peer = RawPeer(served.peer_sock)
        await peer.send(*START)
        for number in range(1, 20, 2):
            await peer.send(peer.request(number))
        while running < 10:
            await asyncio.sleep(0.001)
        await peer.send(*[peer.request(number) for number in range(21, 2000, 2)])
        await peer.read_to_end()
        served.peer_sock.close()
        async with asyncio.timeout(DEADLINE_S):
            await served.task
        assert running == 0

    asyncio.run(main())
    assert 10 <= most <= STREAMS_LIMIT


def test_rapid_reset_leaves_no_handler_behind() -> None:
    """Below the limit of resets too: handlers end with their streams."""
    counts: list[int] = []

    async def main() -> None:
        running = 0

        async def handler(_: H2Downstream) -> None:
            nonlocal running
            running += 1
            try:
                await asyncio.sleep(60)
            finally:
                running -= 1

        served = Served(handler)
        peer = RawPeer(served.peer_sock)
        await peer.send(*START)
        for number in range(1, 300, 2):
            await peer.send(peer.request(number), RstStreamFrame(number, error_code=8))
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        counts.append(running)
        assert not served.task.done()
        await served.end()

    asyncio.run(main())
    assert counts == [0]


def test_a_client_that_never_reads_our_answers_is_not_read_for_ever() -> None:
    """Pings just below the limit, whose answers pile up: they must not pile up here."""

    async def main() -> None:
        served = Served(answer)
        served.peer_sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer = RawPeer(served.peer_sock)
        await peer.send(*START)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            await peer.send(*[PingFrame(0, b"12345678")] * 40)
            await asyncio.sleep(0.01)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 2 << 20
        await served.end()

    asyncio.run(main())


def test_control_what_is_no_flood_is_served() -> None:
    """A client with 3 frames of bookkeeping a request, 1500 requests long."""

    async def main() -> None:
        served = Served(answer)
        peer = RawPeer(served.peer_sock)
        await peer.send(*START)
        for number in range(1, 3001, 2):
            await peer.send(
                peer.request(number, ended=False),
                PriorityFrame(number, depends_on=0, stream_weight=1),
                PingFrame(0, b"12345678"),
                WindowUpdateFrame(0, window_increment=1),
                DataFrame(number, b"", flags=["END_STREAM"]),
            )
            await peer.read_until(
                lambda wanted=(number + 1) // 2: (  # type: ignore[misc]  # a default argument
                    sum(isinstance(frame, HeadersFrame) for frame in peer.frames) == wanted
                )
            )
        assert peer.goaway is None
        assert served.refused == []
        await served.end()

    asyncio.run(main())


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        START[0] + b"\xff" * 100,
        START[0] + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    ],
    ids=["nothing", "http/1.1", "bad preface", "tls", "junk frames", "huge frame"],
)
def test_what_is_no_http_2_ends_the_connection(junk: bytes) -> None:
    async def main() -> None:
        served = Served(answer, deadlines=Deadlines(idle_s=0.5))
        peer = RawPeer(served.peer_sock)
        await peer.send(junk)
        await peer.read_to_end()
        served.peer_sock.close()
        async with asyncio.timeout(DEADLINE_S):
            await served.task

    asyncio.run(main())


def conversation() -> bytes:
    """A client's side of three requests, one of them long and padded, and one reset."""
    peer = RawPeer(socket.socket())
    frames: list[Frame | bytes] = [
        *START,
        peer.request(1, fields(b"/one")),
        peer.request(3, fields(b"/three", method=b"POST"), ended=False),
        DataFrame(3, b"x" * 100, pad_length=7, flags=["PADDED"]),
        WindowUpdateFrame(0, window_increment=5),
        peer.request(5, fields(b"/five"), ended=False),
        DataFrame(3, b"y" * 50, flags=["END_STREAM"]),
        RstStreamFrame(5, error_code=8),
        PingFrame(0, b"12345678"),
        peer.request(7, fields(b"/seven", (b"x-a", b"b"))),
    ]
    peer.sock.close()
    return b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)


def heard(parts: list[bytes], *, patience_s: float = DEADLINE_S) -> list[tuple[str, bytes]]:
    """The requests that a server took from these parts, with their bodies."""
    seen: list[tuple[str, bytes]] = []

    async def handler(down: H2Downstream) -> None:
        body = b""
        async with asyncio.timeout(patience_s):  # as who serves requests does
            while part := await down.read():
                body += part
        await down.send_head(OK, ended=True)
        seen.append((down.request.target, body))

    async def main() -> None:
        served = Served(handler, deadlines=Deadlines(idle_s=0.05))
        peer = RawPeer(served.peer_sock)
        reading = asyncio.create_task(peer.read_to_end())
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0)
        await reading
        served.peer_sock.close()
        async with asyncio.timeout(DEADLINE_S):
            await served.task

    asyncio.run(main())
    return sorted(seen)


WHOLE = conversation()
EXPECTED = sorted([("/one", b""), ("/three", b"x" * 100 + b"y" * 50), ("/seven", b"")])


def test_byte_by_byte() -> None:
    assert heard([WHOLE]) == EXPECTED
    assert heard([WHOLE[index : index + 1] for index in range(len(WHOLE))]) == EXPECTED


@given(cuts=some.lists(some.integers(min_value=0, max_value=len(WHOLE)), max_size=8))
@hypothesis_settings(max_examples=15, deadline=None)
def test_split_anywhere_it_says_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert heard([WHOLE[a:b] for a, b in itertools.pairwise(edges) if a < b]) == EXPECTED


@given(
    position=some.integers(min_value=0, max_value=len(WHOLE)),
    junk=some.binary(min_size=1, max_size=40),
    replaces=some.booleans(),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_junk_ends_the_connection_and_nothing_else(position: int, junk: bytes, *, replaces: bool) -> None:
    """In the middle or instead of what was there: no exception but the end, and nothing that was not said."""
    rest = WHOLE[position + len(junk) if replaces else position :]
    for target, _ in heard([WHOLE[:position] + junk + rest], patience_s=0.05):
        assert target.startswith("/") or target == "*"


@given(
    some.lists(
        some.tuples(
            some.integers(min_value=0, max_value=12),
            some.integers(min_value=0, max_value=255),
            some.integers(min_value=0, max_value=9),
            some.binary(max_size=24),
        ),
        max_size=12,
    )
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_frames_at_random_end_cleanly(frames: list[tuple[int, int, int, bytes]]) -> None:
    data = b"".join(
        len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
        for kind, flags, stream, body in frames
    )
    heard([START[0] + START[1].serialize() + data], patience_s=0.05)
