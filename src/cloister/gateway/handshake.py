"""Follow a spliced TLS handshake until the name in it can no longer change.

A server may answer a ClientHello with HelloRetryRequest; the client then sends a second hello, also in the clear, and
some servers go by the name in that one. So after the first hello nothing more of the client is passed on until the
server has answered, and a second hello must claim what the first did.

Rule 1: what the client sent too early (0-RTT data) waits; it costs such a client one round trip.
Rule 2: every wait has a deadline.
"""

from __future__ import annotations

import asyncio

from cloister.errors import UntrustedInputError
from cloister.gateway import clienthello
from cloister.gateway.clienthello import ClientHello
from cloister.gateway.wire import SocketWire, take


async def follow(client: SocketWire, upstream: SocketWire, hello: ClientHello, *, deadline_s: float) -> None:
    """Send the hello in `client.buffer`, and go on until the splice may begin with what both buffers then hold.

    UntrustedInputError if the client's second hello is not like its first.
    """
    async with asyncio.timeout(deadline_s):
        await upstream.send(take(client, hello.length))
        while (retry := clienthello.retry_requested(bytes(upstream.buffer[:64]))) is None:
            if not await upstream.more():
                return
    if not retry:
        return
    async with asyncio.timeout(deadline_s):
        await client.send(take(upstream))
        while (second := clienthello.parse_second(bytes(client.buffer))) is None:
            if not await client.more():
                return
    if (second.untrusted_server_name, second.encrypted) != (hello.untrusted_server_name, hello.encrypted):
        raise UntrustedInputError("the second ClientHello claims another server name than the first")
