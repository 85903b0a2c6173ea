"""WebSocket: frames of both sides through the relay, in any pieces, with anything between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as some
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from cloister.credentials.redact import Redactor
from cloister.gateway.http import websocket
from cloister.gateway.http.raw import WireStream
from cloister.secret import Secret
from tests.fuzz.streams import CUTS, Fed, byte_by_byte, cut, mutated, run

Messages = Sequence[TextMessage | BytesMessage | Ping]
SECRET = [Secret("it", b"s3cret-value")]
MESSAGES: some.SearchStrategy[Messages] = some.lists(
    some.one_of(
        some.text(max_size=30).map(lambda text: TextMessage(data=text)),
        some.binary(max_size=200).map(lambda data: BytesMessage(data=data)),
        some.binary(max_size=100).map(lambda data: Ping(payload=data)),
        some.sampled_from([TextMessage(data="s3cret-value"), BytesMessage(data=b"a s3cret-value b")]),
    ),
    max_size=5,
)


def _written(messages: Messages, kind: ConnectionType) -> bytes:
    speaker = Connection(kind)
    said = b"".join(speaker.send(message) for message in messages)
    return said + speaker.send(CloseConnection(code=CloseReason.NORMAL_CLOSURE))


class Answering(Fed):
    """A side that says nothing, and closes when it is closed."""

    def __init__(self, kind: ConnectionType) -> None:
        super().__init__([])
        self._closed = asyncio.Event()
        self._last = _written([], kind)

    async def send(self, data: bytes) -> None:
        await super().send(data)
        if data[:1] == b"\x88":  # an event is written at a time
            self._closed.set()

    async def more(self) -> bool:
        await self._closed.wait()
        self.buffer += self._last
        self._last = b""
        return bool(self.buffer)


def relayed(client: Callable[[], Fed], upstream: Callable[[], Fed]) -> tuple[bytes, bytes, str | None]:
    """What reaches the upstream, what reaches the client, and what ended it."""

    async def main() -> tuple[bytes, bytes, str | None]:
        ours, theirs, counts = client(), upstream(), websocket.Counts()
        await websocket.relay(
            WireStream(ours),
            WireStream(theirs),
            to_upstream=lambda: Redactor(()),
            to_client=lambda: Redactor(SECRET),
            counts=counts,
        )
        return bytes(theirs.sent), bytes(ours.sent), counts.fault

    return run(main())


def _heard(data: bytes, kind: ConnectionType) -> list[object]:
    """The messages in these bytes, each whole."""
    listener = Connection(kind)
    listener.receive_data(data)
    heard: list[object] = []
    begun: list[bytes] = []
    for event in listener.events():
        if isinstance(event, TextMessage | BytesMessage):
            begun.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                whole = b"".join(begun)
                heard.append(whole.decode() if isinstance(event, TextMessage) else whole)
                begun = []
        elif isinstance(event, Ping):
            heard.append(("ping", bytes(event.payload)))
    return heard


@given(MESSAGES, CUTS)
def test_messages_reach_the_upstream_as_they_were(messages: Messages, cuts: list[int]) -> None:
    data = _written(messages, ConnectionType.CLIENT)
    for parts in (cut(data, cuts), byte_by_byte(data)):
        up, _, fault = relayed(partial(Fed, parts), partial(Answering, ConnectionType.SERVER))
        assert fault is None
        assert _heard(up, ConnectionType.SERVER) == _heard(data, ConnectionType.SERVER)


@given(MESSAGES, CUTS)
def test_messages_reach_the_client_without_values(messages: Messages, cuts: list[int]) -> None:
    data = _written(messages, ConnectionType.SERVER)
    masked = [_masked(message) for message in _heard(data, ConnectionType.CLIENT)]
    for parts in (cut(data, cuts), byte_by_byte(data)):
        _, down, fault = relayed(partial(Answering, ConnectionType.CLIENT), partial(Fed, parts))
        assert fault is None
        assert _heard(down, ConnectionType.CLIENT) == masked


def _masked(message: object) -> object:
    match message:
        case str():
            return message.replace("s3cret-value", "*" * 12)
        case bytes():
            return message.replace(b"s3cret-value", b"*" * 12)
        case _:
            return message


@given(
    mutated(
        MESSAGES.map(lambda all_: _written(all_, ConnectionType.SERVER)),
        (b"\x88\0", b"\x81\x7f" + b"\xff" * 8, b"\xc1"),
    ),
    CUTS,
)
def test_damaged_frames_end_it_and_nothing_else(damaged: bytes, cuts: list[int]) -> None:
    _, down, _ = relayed(partial(Answering, ConnectionType.CLIENT), partial(Fed, cut(damaged, cuts)))
    try:
        _heard(down, ConnectionType.CLIENT)
    except RemoteProtocolError as error:
        raise AssertionError("what reaches the client is no WebSocket") from error
    assert b"s3cret-value" not in down
