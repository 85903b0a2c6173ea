"""HTTP/2 towards the sandbox: what is served, and that streams, windows and connections end as they must."""

from __future__ import annotations

import asyncio

import h2.errors
import h2.events
import pytest

from cloister.gateway.http.h2_connection import CONNECTION_WINDOW_BYTES
from cloister.gateway.http.h2_server import H2Downstream
from cloister.gateway.http.h2_streams import GoneError
from cloister.gateway.services import Deadlines
from cloister.messages import RequestHead, ResponseHead
from tests.unit.gateway.http.peers import DEADLINE_S, Fields, Peer, Served, fields, settings

OK = ResponseHead(status=200, length=None)


async def echo(down: H2Downstream) -> None:
    """The request's body and trailers, back."""
    await down.send_head(OK, ended=False)
    while part := await down.read():
        await down.write(part)
    await down.finish(down.trailers)


async def connected(served: Served, **values: int) -> Peer:
    peer = Peer(served.peer_sock, client=True)
    await peer.start(settings(**values))
    return peer


def test_a_request_and_its_response() -> None:
    async def main() -> None:
        seen: list[RequestHead] = []

        async def handler(down: H2Downstream) -> None:
            seen.append(down.request)
            await down.send_head(ResponseHead(status=404, headers=((b"x-a", b"b"),), length=3), ended=False)
            await down.write(b"abc")
            await down.finish()

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1, fields(b"/a?b"))
        await peer.until_event(h2.events.StreamEnded, 1)
        assert (peer.status(1), peer.body(1)) == (404, b"abc")
        head = next(event for event in peer.events if isinstance(event, h2.events.ResponseReceived))
        assert dict(head.headers or [])[b"content-length"] == b"3"
        assert (seen[0].method, seen[0].target, seen[0].length) == ("GET", "/a?b", 0)
        await served.end()

    asyncio.run(main())


def test_many_streams_at_once_each_get_their_own_body() -> None:
    async def main() -> None:
        served = Served(echo)
        peer = await connected(served)
        bodies = {number: bytes([number]) * (number * 80) for number in range(1, 200, 2)}
        await peer.until(lambda: peer.protocol.outbound_flow_control_window > 1 << 20)
        for number, body in bodies.items():
            await peer.ask(number, fields(method=b"POST"), body)
        for number, body in bodies.items():
            await peer.until_event(h2.events.StreamEnded, number)
            assert peer.body(number) == body
        await served.end()

    asyncio.run(main())


def test_a_long_stream_both_ways_with_trailers_as_grpc_has() -> None:
    async def main() -> None:
        served = Served(echo)
        peer = await connected(served)
        peer.protocol.send_headers(1, fields(b"/svc/Call", (b"te", b"trailers"), method=b"POST"))
        for round_number in range(1, 20):
            peer.protocol.send_data(1, b"ping")
            await peer.flush()
            await peer.until(lambda wanted=round_number * 4: len(peer.body(1)) == wanted)  # type: ignore[misc]  # a default argument
        peer.protocol.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
        await peer.flush()
        trailers = await peer.until_event(h2.events.TrailersReceived, 1)
        assert isinstance(trailers, h2.events.TrailersReceived)
        assert list(trailers.headers or []) == [(b"grpc-status", b"0")]
        await served.end()

    asyncio.run(main())


def test_a_body_waits_for_the_clients_window() -> None:
    async def main() -> None:
        written = 0

        async def handler(down: H2Downstream) -> None:
            nonlocal written
            await down.send_head(OK, ended=False)
            for _ in range(20):
                await down.write(b"x" * 1000)
                written += 1000
            await down.finish()

        served = Served(handler)
        peer = await connected(served, INITIAL_WINDOW_SIZE=2500)
        peer.acknowledges = False
        await peer.ask(1)
        await peer.until(lambda: len(peer.body(1)) == 2500)
        assert written == 2000
        await peer.ask(3, fields(b"/other"))
        await peer.until(lambda: len(peer.body(3)) == 2500)  # the other stream is not held up
        peer.protocol.increment_flow_control_window(100_000, 1)
        await peer.flush()
        await peer.until_event(h2.events.StreamEnded, 1)
        assert len(peer.body(1)) == 20_000
        await served.end()

    asyncio.run(main())


def test_an_upload_is_taken_only_as_it_is_read() -> None:
    async def main() -> None:
        go, size = asyncio.Event(), 4 << 20

        async def handler(down: H2Downstream) -> None:
            await go.wait()
            read = 0
            while part := await down.read():
                read += len(part)
            await down.send_head(ResponseHead(status=200, headers=((b"x-read", b"%d" % read),)), ended=True)

        served = Served(handler)
        peer = await connected(served)
        peer.protocol.send_headers(1, fields(method=b"POST"))
        await peer.flush()
        await peer.until(lambda: peer.protocol.local_flow_control_window(1) > 65535)
        first = sent = await send_window(peer, size)
        assert first <= 1 << 20
        go.set()
        while sent < size:
            await peer.until(lambda: peer.protocol.local_flow_control_window(1) > 0)
            sent += await send_window(peer, size - sent)
        peer.protocol.end_stream(1)
        await peer.flush()
        head = await peer.until_event(h2.events.ResponseReceived, 1)
        assert isinstance(head, h2.events.ResponseReceived)
        assert dict(head.headers or [])[b"x-read"] == b"%d" % size
        await served.end()

    asyncio.run(main())


async def send_window(peer: Peer, limit: int) -> int:
    """As much as the window takes."""
    sent = 0
    while (
        step := min(
            peer.protocol.local_flow_control_window(1), peer.protocol.max_outbound_frame_size, limit - sent
        )
    ) > 0:
        peer.protocol.send_data(1, b"x" * step)
        sent += step
        await peer.flush()
    return sent


def test_a_million_frames_of_one_byte_cost_their_bytes() -> None:
    """A window's worth of the smallest frames must not become as many objects."""

    async def main() -> None:
        go, parts = asyncio.Event(), []

        async def handler(down: H2Downstream) -> None:
            await go.wait()
            while part := await down.read():
                parts.append(part)
            await down.send_head(OK, ended=True)

        served = Served(handler)
        peer = await connected(served)
        peer.protocol.send_headers(1, fields(method=b"POST"))
        for number in range(20_000):
            peer.protocol.send_data(1, bytes([number % 251]), pad_length=1 if number % 100 == 0 else None)
        peer.protocol.end_stream(1)
        await peer.flush()
        await asyncio.sleep(0.2)
        go.set()
        await peer.until_event(h2.events.StreamEnded, 1)
        assert b"".join(parts) == bytes(number % 251 for number in range(20_000))
        assert len(parts) < 20
        await served.end()

    asyncio.run(main())


def test_what_is_not_read_is_given_back_to_the_other_streams() -> None:
    """Uploads that are refused unread, of more bytes than the connection's window has."""

    async def main() -> None:
        async def handler(down: H2Downstream) -> None:
            await down.send_head(ResponseHead(status=403, length=0), ended=True)

        served = Served(handler)
        peer = await connected(served)
        await peer.until(lambda: peer.protocol.outbound_flow_control_window > 65535)
        sent, number = 0, 1
        while sent < 2 * CONNECTION_WINDOW_BYTES:
            peer.protocol.send_headers(number, fields(method=b"POST"))
            try:
                for _ in range(12):
                    await peer.until(
                        lambda n=number: (  # type: ignore[misc]  # a default argument
                            peer.protocol.local_flow_control_window(n) > 16384 or peer.status(n) is not None
                        )
                    )
                    peer.protocol.send_data(number, b"x" * 16384)
                    sent += 16384
            except h2.exceptions.ProtocolError:
                pass  # it has been reset: no more of this one
            await peer.flush()
            number += 2
        await served.end()

    asyncio.run(main())


def test_a_reset_ends_the_handler_at_once() -> None:
    async def main() -> None:
        how: list[str] = []

        async def handler(_: H2Downstream) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                how.append("cancelled")
                raise

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1)
        await asyncio.sleep(0.05)
        peer.protocol.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
        await peer.flush()
        async with asyncio.timeout(DEADLINE_S):
            while not how:
                await asyncio.sleep(0.01)
        await peer.ask(3, fields(b"/next"))  # the connection lives
        assert not served.task.done()
        await served.end()

    asyncio.run(main())


def test_a_client_that_leaves_ends_its_handlers() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handler(_: H2Downstream) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1)
        await asyncio.sleep(0.05)
        await served.end()
        assert ended.is_set()

    asyncio.run(main())


def test_a_cut_response_is_reset_and_the_connection_lives() -> None:
    async def main() -> None:
        async def handler(down: H2Downstream) -> None:
            await down.send_head(ResponseHead(status=200, length=100), ended=False)
            await down.write(b"half")
            down.abort()

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1)
        reset = await peer.until_event(h2.events.StreamReset, 1)
        assert isinstance(reset, h2.events.StreamReset)
        assert reset.error_code == h2.errors.ErrorCodes.INTERNAL_ERROR
        await peer.ask(3)
        await peer.until_event(h2.events.StreamReset, 3)
        await served.end()

    asyncio.run(main())


def test_a_handler_that_fails_resets_its_stream_and_is_told() -> None:
    async def main() -> None:
        async def handler(_: H2Downstream) -> None:
            raise ValueError("a bug")

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1)
        await peer.until_event(h2.events.StreamReset, 1)
        with pytest.raises(ValueError, match="a bug"):
            await served.end()

    asyncio.run(main())


@pytest.mark.parametrize("requests", [0, 1])
def test_an_idle_connection_ends_with_a_goodbye(requests: int) -> None:
    async def main() -> None:
        served = Served(echo, deadlines=Deadlines(idle_s=0.2))
        peer = await connected(served)
        for number in range(requests):
            await peer.ask(2 * number + 1)
        goaway = await peer.until_event(h2.events.ConnectionTerminated)
        assert isinstance(goaway, h2.events.ConnectionTerminated)
        assert goaway.error_code == h2.errors.ErrorCodes.NO_ERROR
        assert len([event for event in peer.events if isinstance(event, h2.events.StreamEnded)]) == requests
        served.peer_sock.close()
        await served.task

    asyncio.run(main())


def test_a_connection_with_a_request_is_not_idle() -> None:
    async def main() -> None:
        async def handler(down: H2Downstream) -> None:
            await asyncio.sleep(0.5)
            await down.send_head(OK, ended=True)

        served = Served(handler, deadlines=Deadlines(idle_s=0.2))
        peer = await connected(served)
        await peer.ask(1)
        await peer.until_event(h2.events.StreamEnded, 1)
        assert peer.status(1) == 200
        await served.end()

    asyncio.run(main())


def test_a_client_that_says_goodbye_gets_what_it_has_asked_for() -> None:
    async def main() -> None:
        served = Served(echo)
        peer = await connected(served)
        peer.protocol.send_headers(1, fields(method=b"POST"))
        peer.protocol.send_data(1, b"x" * 1000, end_stream=True)
        data = peer.protocol.data_to_send()
        goaway = b"\0\0\x08\x07\0\0\0\0\0" + bytes(8)
        await peer.raw(data, goaway)
        await peer.until_event(h2.events.StreamEnded, 1)
        assert peer.body(1) == b"x" * 1000
        async with asyncio.timeout(DEADLINE_S):
            while await peer.step():
                pass
        served.peer_sock.close()
        await served.task

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "status", "length"), [(b"HEAD", 200, 5), (b"GET", 304, 5), (b"GET", 204, 0), (b"GET", 200, 0)]
)
def test_responses_without_a_body(method: bytes, status: int, length: int) -> None:
    async def main() -> None:
        async def handler(down: H2Downstream) -> None:
            head = ResponseHead(status=status, length=0, declared_length=length or None)
            await down.send_head(head, ended=True)

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1, fields(method=method))
        await peer.until(lambda: peer.status(1) is not None)
        await peer.until_event(h2.events.StreamEnded, 1)
        assert (peer.status(1), peer.body(1)) == (status, b"")
        await served.end()

    asyncio.run(main())


def test_expect_100_continue() -> None:
    async def main() -> None:
        async def handler(down: H2Downstream) -> None:
            await down.send_continue()
            await down.send_continue()  # once is enough
            await echo(down)

        served = Served(handler)
        peer = await connected(served)
        peer.protocol.send_headers(1, fields(b"/", (b"expect", b"100-continue"), method=b"PUT"))
        await peer.flush()
        await peer.until_event(h2.events.InformationalResponseReceived, 1)
        peer.protocol.send_data(1, b"body", end_stream=True)
        await peer.flush()
        await peer.until_event(h2.events.StreamEnded, 1)
        assert peer.body(1) == b"body"
        kinds = [type(event) for event in peer.events]
        assert kinds.count(h2.events.InformationalResponseReceived) == 1
        await served.end()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_fields", "reason"),
    [
        (fields(b"/a#b"), "fragment"),
        ([*fields(method=b"CONNECT"), (b":protocol", b"websocket")], "method"),
        ([(b":scheme", b"http") if pair[0] == b":scheme" else pair for pair in fields()], "scheme"),
    ],
)
def test_id_2_what_has_two_readings_is_told_so_and_reaches_no_handler(
    request_fields: Fields, reason: str
) -> None:
    async def main() -> None:
        asked: list[str] = []

        async def handler(down: H2Downstream) -> None:
            asked.append(down.request.path)
            await down.send_head(OK, ended=True)

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1, request_fields)
        await peer.until(lambda: peer.status(1) is not None)
        await peer.until_event(h2.events.StreamEnded, 1)
        assert peer.status(1) == 400
        assert reason.encode() in peer.body(1)
        await peer.ask(3, fields(b"/good"))
        await peer.until_event(h2.events.StreamEnded, 3)
        assert asked == ["/good"]
        assert len(served.refused) == 1
        assert reason in served.refused[0]
        await served.end()

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_fields",
    [
        fields(b"/", (b"host", b"evil.example.com")),
        [pair for pair in fields() if pair[0] != b":authority"],
        [*fields(), (b":authority", b"evil.example.com")],
        [*fields()[:2], (b"x-a", b"b"), *fields()[2:]],
        fields(b"/", (b"connection", b"x-a")),
        fields(b"/", (b"transfer-encoding", b"chunked")),
        fields(b"/", (b"upgrade", b"websocket")),
        fields(b"/", (b"te", b"gzip")),
        fields(b"/", (b"X-Upper", b"b")),
        fields(b"/", (b":status", b"200")),
        fields(b"", method=b"GET"),
    ],
)
def test_http_5_what_h2_refuses_ends_the_connection_and_is_told(request_fields: Fields) -> None:
    """No handler sees it, nor what comes behind it."""

    async def main() -> None:
        asked: list[str] = []

        async def handler(down: H2Downstream) -> None:
            asked.append(down.request.path)
            await down.send_head(OK, ended=True)

        served = Served(handler)
        peer = await connected(served)
        peer.protocol.config.validate_outbound_headers = False
        peer.protocol.config.normalize_outbound_headers = False
        await peer.ask(1, request_fields)
        await peer.until_event(h2.events.ConnectionTerminated)
        assert asked == []
        assert len(served.refused) == 1
        assert "bad HTTP/2" in served.refused[0]
        await served.end()

    asyncio.run(main())


def test_a_client_that_reads_nothing_holds_up_its_own_streams_only_so_far() -> None:
    """What is written for it stays bounded; when it reads, all of it comes."""

    async def main() -> None:
        written = 0

        async def handler(down: H2Downstream) -> None:
            nonlocal written
            await down.send_head(OK, ended=False)
            for _ in range(64):
                await down.write(b"x" * 65536)
                written += 65536
            await down.finish()

        served = Served(handler)
        peer = await connected(served, INITIAL_WINDOW_SIZE=1 << 27)
        peer.protocol.increment_flow_control_window(1 << 27)
        for number in (1, 3, 5, 7):
            await peer.ask(number)
        await asyncio.sleep(0.3)
        assert written < 4 << 20
        for number in (1, 3, 5, 7):
            await peer.until_event(h2.events.StreamEnded, number)
            assert len(peer.body(number)) == 64 * 65536
        await served.end()

    asyncio.run(main())


def test_a_cancelled_write_leaves_no_half_frame() -> None:
    """The other streams of the connection go on."""

    async def main() -> None:
        writing: list[asyncio.Task[None]] = []

        async def handler(down: H2Downstream) -> None:
            await down.send_head(OK, ended=False)
            task = asyncio.create_task(down.write(b"x" * (8 << 20)))
            writing.append(task)
            await asyncio.wait({task}, timeout=0.1)
            if down.request.path == "/cut":
                task.cancel()
                await asyncio.wait({task})
                down.abort()
                return
            await task
            await down.finish()

        served = Served(handler)
        peer = await connected(served, INITIAL_WINDOW_SIZE=1 << 25)
        peer.protocol.increment_flow_control_window(1 << 25)
        await peer.ask(1, fields(b"/cut"))
        await peer.ask(3, fields(b"/whole"))
        await asyncio.sleep(0.3)
        await peer.until_event(h2.events.StreamEnded, 3)
        assert peer.body(3) == b"x" * (8 << 20)
        await served.end()

    asyncio.run(main())


def test_what_is_written_behind_the_clients_end_is_an_error_of_the_clients() -> None:
    async def main() -> None:
        errors: list[BaseException] = []

        async def handler(down: H2Downstream) -> None:
            await down.send_head(OK, ended=False)
            try:
                while True:
                    await down.write(b"x" * 10_000)
            except (OSError, GoneError, asyncio.CancelledError) as error:
                errors.append(error)
                raise

        served = Served(handler)
        peer = await connected(served)
        await peer.ask(1)
        await peer.until(lambda: len(peer.body(1)) > 100_000)
        await served.end()
        assert isinstance(errors[0], OSError | asyncio.CancelledError)

    asyncio.run(main())
