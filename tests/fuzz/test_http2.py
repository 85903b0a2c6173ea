"""HTTP/2: a client that does in any order what h2 lets it do, against our server; each stream gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import h2.errors
import h2.events
import h2.windows
import pytest
from hypothesis import assume
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloister.gateway.http.h2_server import H2Downstream
from cloister.messages import ResponseHead
from tests.unit.gateway.http.peers import Peer, Served, fields, settings

_consume = h2.windows.WindowManager.window_consumed


def _consumed(self: h2.windows.WindowManager, size: int) -> None:
    """A window that a setting has made negative takes the empty end of a stream (RFC 9113 section 6.9.2); h2's does not."""
    if size:
        _consume(self, size)


h2.windows.WindowManager.window_consumed = _consumed  # type: ignore[method-assign]  # of the client here
STREAM = some.integers(min_value=0, max_value=30)


async def echo(down: H2Downstream) -> None:
    """Answer with what came, part by part."""
    await down.send_head(ResponseHead(status=200, length=None), ended=False)
    while part := await down.read():
        await down.write(part)
    await down.finish(down.trailers)


class Client(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.settings_sent = 0
        self.sent: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.run(self._start())

    async def _start(self) -> None:
        self.served = Served(echo)
        self.peer = Peer(self.served.peer_sock, client=True)
        await self.peer.start()
        await self._acknowledged(1)

    async def _acknowledged(self, count: int) -> None:
        """Until so many of our settings are in force: `h2` takes any acknowledgement for that of the latest."""

        def done() -> bool:
            return (
                sum(isinstance(event, h2.events.SettingsAcknowledged) for event in self.peer.events) >= count
            )

        await self.peer.flush()
        await self.peer.until(done)
        self.settings_sent = count

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(10):
                await work

        self.loop.run_until_complete(limited())

    def _open(self, number: int) -> int:
        """One of the streams that the client may still send on."""
        waiting = sorted(self.sent.keys() - self.ended - self.reset)
        assume(waiting)
        return waiting[number % len(waiting)]

    @rule(padding=some.booleans())
    def ask(self, *, padding: bool) -> None:
        assume(len(self.sent) - len(self.reset) - len(self.ended) < 20)
        stream = 1 + 2 * len(self.sent)
        more = ((b"x-padding", b"x" * 3000),) if padding else ()
        self.peer.protocol.send_headers(stream, fields(b"/", *more, method=b"POST"))
        self.sent[stream] = b""
        self.run(self.peer.flush())

    @rule(number=STREAM, data=some.binary(max_size=3000), padding=some.sampled_from([None, 0, 9]))
    def send(self, number: int, data: bytes, padding: int | None) -> None:
        stream = self._open(number)
        assume(self.peer.protocol.local_flow_control_window(stream) > len(data) + 10)
        self.peer.protocol.send_data(stream, data, pad_length=padding)
        self.sent[stream] += data
        self.run(self.peer.flush())

    @rule(number=STREAM, trailers=some.booleans())
    def end(self, number: int, *, trailers: bool) -> None:
        stream = self._open(number)
        if trailers:
            self.peer.protocol.send_headers(stream, [(b"x-sum", b"1")], end_stream=True)
        else:
            self.peer.protocol.end_stream(stream)
        self.ended.add(stream)
        self.run(self.peer.flush())

    @rule(number=STREAM)
    def give_up(self, number: int) -> None:
        assume(len(self.reset) < 20)  # more is a flood
        stream = self._open(number)
        self.peer.protocol.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.reset.add(stream)
        self.run(self.peer.flush())

    @rule(size=some.sampled_from([1, 1000, 65535, 1 << 20]))
    def change_the_window(self, size: int) -> None:
        self.peer.protocol.update_settings(settings(INITIAL_WINDOW_SIZE=size))
        self.run(self._acknowledged(self.settings_sent + 1))

    @rule()
    def ping(self) -> None:
        self.peer.protocol.ping(b"12345678")
        self.run(self.peer.flush())

    @rule(turns=some.integers(min_value=1, max_value=5))
    def let_the_server_work(self, turns: int) -> None:
        async def work() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(work())

    @rule()
    def read(self) -> None:
        """All that the server has to say to a ping of now, and before it."""
        self.peer.protocol.ping(b"readread")
        before = len(self.peer.events)

        def answered() -> bool:
            return any(
                isinstance(event, h2.events.PingAckReceived) and event.ping_data == b"readread"
                for event in self.peer.events[before:]
            )

        async def work() -> None:
            await self.peer.flush()
            await self.peer.until(answered)

        self.run(work())

    @invariant()
    def nobody_hears_what_another_said(self) -> None:
        assert not self.served.task.done()
        for stream, sent in self.sent.items():
            assert sent.startswith(self.peer.body(stream))

    def teardown(self) -> None:
        for stream in sorted(self.sent.keys() - self.ended - self.reset):
            self.peer.protocol.end_stream(stream)
            self.ended.add(stream)
        self.peer.protocol.update_settings(settings(INITIAL_WINDOW_SIZE=1 << 20))
        finished = self.ended - self.reset

        def whole() -> bool:
            ended = {
                event.stream_id for event in self.peer.events if isinstance(event, h2.events.StreamEnded)
            }
            return finished <= ended

        async def work() -> None:
            await self._acknowledged(self.settings_sent + 1)
            await self.peer.until(whole)
            await self.served.end()

        try:
            self.run(work())
            assert {stream: self.peer.body(stream) for stream in finished} == {
                stream: self.sent[stream] for stream in finished
            }
            assert self.served.refused == []
        finally:
            self.loop.run_until_complete(self._leave())
            self.loop.close()

    async def _leave(self) -> None:
        """Nothing of this example runs in the next one."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


TestClient = Client.TestCase


@pytest.mark.filterwarnings(
    "ignore::hypothesis.errors.HypothesisDeprecationWarning"
)  # the rules' `assume` holds here
def test_a_stream_may_end_when_its_window_has_become_negative() -> None:
    """Found by `make fuzz`: the data were on their way when the client's setting came."""
    client = Client()
    client.ask(padding=False)
    client.send(number=0, data=b"\0\0", padding=None)
    client.ping()
    client.change_the_window(size=1)
    client.end(number=0, trailers=False)
    client.teardown()
