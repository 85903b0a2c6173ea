"""Relay a WebSocket, message by message: what it carries is looked at and changed like a body (RFC 6455).

Rule 1: frames are parsed and written anew on both sides; extensions are not negotiated, so there is no compression.
Rule 2: a message streams: a part is passed on when it has come. Text stays valid UTF-8 on either side of a filter.
Rule 3: whoever breaks the protocol ends both sides; what is refused closes with 1008 (policy violation).
Rule 4: pings, pongs and reasons of a close carry bytes too: they pass the same filters.
Rule 5: when one side has closed, the other has CLOSE_S to do so; the upstream's connection ends with the relay.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from cloister.gateway.http.streams import RawStream
from cloister.messages import ResponseHead

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3; nothing secret
_POLICY_VIOLATION = 1008
_PROTOCOL_ERROR = 1002
CLOSE_S = 10.0
_TURN_EVENTS = 64
EXTENSIONS = b"sec-websocket-extensions"


class MessageFilter(Protocol):
    """Changes one message's bytes. May raise `RefusedMessageError`."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class RefusedMessageError(Exception):
    """A message must not go where it goes."""


@dataclass(slots=True)
class Counts:
    """Bytes of messages that were passed on. `fault` says what ended it, if it was no close of either side."""

    sent_bytes: int = 0
    received_bytes: int = 0
    fault: str | None = None


def accept_key(key: bytes) -> bytes:
    """What a server that accepts `key` answers."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def refusal(key: bytes | None, head: ResponseHead) -> str | None:
    """What is wrong with a 101; None if it accepts the WebSocket that was asked for."""
    if key is None:
        return "a 101 that nobody asked for"
    upgrade = [value.strip().lower() for value in head.values(b"upgrade")]
    if head.values(b"sec-websocket-accept") != [accept_key(key)] or upgrade != [b"websocket"]:
        return "a 101 that does not accept the WebSocket that was asked for"
    if head.values(EXTENSIONS):
        return "a 101 with extensions that nobody asked for"
    return None


@dataclass(slots=True)
class _Side:
    stream: RawStream
    protocol: Connection
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send(self, event: Event) -> None:
        """What comes for a side that has closed already is dropped."""
        async with self.lock:
            state = self.protocol.state
            if state is not ConnectionState.OPEN and not (
                isinstance(event, CloseConnection) and state is ConnectionState.REMOTE_CLOSING
            ):
                return
            await self.stream.write(self.protocol.send(event))


async def relay(
    client: RawStream,
    upstream: RawStream,
    *,
    to_upstream: Callable[[], MessageFilter],
    to_client: Callable[[], MessageFilter],
    counts: Counts,
) -> None:
    """Pass messages on until both sides have closed, or one has gone. The callables make a filter for each message."""
    ours = _Side(client, Connection(ConnectionType.SERVER))
    theirs = _Side(upstream, Connection(ConnectionType.CLIENT))

    def sent(size: int) -> None:
        counts.sent_bytes += size

    def received(size: int) -> None:
        counts.received_bytes += size

    try:
        async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:

            def closing(_: asyncio.Task[None]) -> None:
                with contextlib.suppress(RuntimeError):  # it is over
                    deadline.reschedule(asyncio.get_running_loop().time() + CLOSE_S)

            for pump in (_pump(ours, theirs, to_upstream, sent), _pump(theirs, ours, to_client, received)):
                group.create_task(pump).add_done_callback(closing)
    except TimeoutError:
        counts.fault = "a side did not close"
        client.abort()
    except asyncio.CancelledError:
        upstream.reset()
        raise
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
        if isinstance(failure, RefusedMessageError):
            counts.fault = str(failure)
            await _close(ours, theirs, _POLICY_VIOLATION, "refused by cloister")
        elif isinstance(failure, RemoteProtocolError | LocalProtocolError | UnicodeDecodeError):
            counts.fault = "not a WebSocket any more"
            await _close(ours, theirs, _PROTOCOL_ERROR, "")
        elif isinstance(failure, OSError):
            counts.fault = "a side went without a close"
        else:
            raise failure from None
        client.abort()
    finally:
        upstream.abort()


async def _pump(
    source: _Side, sink: _Side, new_filter: Callable[[], MessageFilter], count: Callable[[int], None]
) -> None:
    """From one side to the other, until the source has closed."""
    message = _Message(new_filter)
    while True:
        data = await source.stream.read()
        if not data:
            raise ConnectionResetError
        source.protocol.receive_data(data)
        for number, event in enumerate(source.protocol.events(), 1):
            if not number % _TURN_EVENTS:
                await asyncio.sleep(0)  # a read can hold a hundred thousand frames
            match event:
                case TextMessage() | BytesMessage():
                    count(len(event.data))
                    await sink.send(message.passed(event))
                case Ping(payload=payload):
                    await sink.send(Ping(payload=_filtered(payload, new_filter)))
                case Pong(payload=payload):
                    await sink.send(Pong(payload=_filtered(payload, new_filter)))
                case CloseConnection(code=code, reason=reason):
                    reason = _filtered((reason or "").encode(), new_filter).decode(errors="replace")
                    await sink.send(CloseConnection(code=code, reason=reason or None))
                    return


def _filtered(payload: bytes | bytearray, new_filter: Callable[[], MessageFilter]) -> bytes:
    """A control frame's payload. What would make it longer than it may be (125 bytes) does not happen to it."""
    control = new_filter()
    out = control.feed(bytes(payload)) + control.end()
    return out if len(out) == len(payload) else bytes(payload)


class _Message:
    """The filter of the message that is passing."""

    def __init__(self, new_filter: Callable[[], MessageFilter]) -> None:
        self._new = new_filter
        self._filter: MessageFilter | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def passed(self, event: TextMessage | BytesMessage) -> Event:
        """The part as it goes on."""
        if self._filter is None:
            self._filter = self._new()
            self._decoder.reset()
        text = isinstance(event, TextMessage)
        data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
        out = self._filter.feed(data)
        if event.message_finished:
            out += self._filter.end()
            self._filter = None
        if text:
            return TextMessage(
                data=self._decoder.decode(out, final=event.message_finished),
                message_finished=event.message_finished,
            )
        return BytesMessage(data=out, message_finished=event.message_finished)


async def _close(ours: _Side, theirs: _Side, code: int, reason: str) -> None:
    for side in (ours, theirs):
        try:
            async with asyncio.timeout(1.0):
                await side.send(CloseConnection(code=code, reason=reason))
        except (OSError, TimeoutError, LocalProtocolError):
            continue  # it has gone, or has closed already
