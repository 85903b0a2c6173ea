"""HTTP/2: what a reset takes back, and what it does not."""

from __future__ import annotations

import asyncio
from typing import cast

import h2.config
import h2.errors
import h2.events
import pytest

from cloister.gateway.http.h2_connection import Connection
from cloister.gateway.http.h2_streams import GoneError, Stream
from cloister.gateway.wire import Wire

RESET = h2.events.StreamReset(stream_id=1, error_code=h2.errors.ErrorCodes.NO_ERROR)
ENDED = h2.events.StreamEnded(stream_id=1)


def received(*events: h2.events.Event) -> Stream:
    """A stream to which these events have come behind three bytes. The wire is not touched."""
    connection = Connection(cast(Wire, None), h2.config.H2Configuration(client_side=True))
    stream = connection.streams[1] = Stream(connection, 1)
    stream.deliver(b"all", 0)
    for event in events:
        connection.dispatch(event)
    return stream


async def read_all(stream: Stream) -> bytes:
    data = b""
    while part := await stream.read():
        data += part
    return data


def test_a_reset_behind_the_end_takes_nothing_back() -> None:
    """RFC 9113 section 8.1: clients do not discard such a response."""
    stream = received(ENDED, RESET)
    assert asyncio.run(read_all(stream)) == b"all"
    with pytest.raises(GoneError):
        asyncio.run(stream.write(b"more"))


def test_a_reset_before_the_end_cuts_it_short() -> None:
    with pytest.raises(GoneError):
        asyncio.run(read_all(received(RESET)))
