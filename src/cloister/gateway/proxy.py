"""The explicit HTTP proxy, for clients that use HTTPS_PROXY: CONNECT, and plain HTTP with an absolute target.

Rule 1: it judges nothing of its own: CONNECT leads to the same path as a transparent connection, with the
        name known.
Rule 2: a refused CONNECT is answered in the way that its client shows best: 403 with the reason in the status
        line, or the page inside the tunnel (ADR 0022).
Rule 3: `Proxy-Authorization` and the other hop-by-hop headers end here.
"""

from __future__ import annotations

import asyncio
import dataclasses

from cloister.errors import UntrustedInputError
from cloister.gateway import connection, intercept, judge, refuse, strict
from cloister.gateway.judge import Asked
from cloister.gateway.services import Services
from cloister.gateway.wire import SocketWire, read_head
from cloister.types import Allow, Deny

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_NOBODY = Asked(via="proxy", host=None, port=0, untrusted_target="the proxy")


async def serve(services: Services, wire: SocketWire) -> None:
    """Serve one connection to the proxy."""
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            untrusted = await read_head(wire, limit_bytes=strict.HEAD_LIMIT_BYTES)
        if untrusted is None:
            return
        if not untrusted.startswith(b"CONNECT "):
            await intercept.over_plain(services, wire, None, untrusted)
            return
        head = strict.request_head(untrusted)
        asked = judge.connect_target(head.untrusted_authority)
    except UntrustedInputError as error:
        await refuse.over_http(services, wire, _NOBODY, Deny(reason=f"bad request: {error}"), status=400)
        return
    except TimeoutError:
        await refuse.over_http(
            services, wire, _NOBODY, Deny(reason="the HTTP head did not come in time"), status=408
        )
        return
    denial = _denial(services, asked)
    if denial is not None and services.lure is not None and asked.host is not None:
        services.refuse(denial, asked, protocol="http", method=head.method)
        denial = None  # what it would have sent is refused one by one
    if denial is not None and _shows_status(head):
        await refuse.over_http(services, wire, asked, denial, head=head)
        return
    if denial is not None:
        asked = dataclasses.replace(asked, host=None, denial=denial)
    async with asyncio.timeout(services.deadlines.head_s):
        await wire.send(_ESTABLISHED)
    await connection.transparent(services, wire, asked)


def _shows_status(head: strict.RequestHead) -> bool:
    """Whether this client prints the status line of a refused CONNECT.

    Python's http.client and Node's proxy agents do and send no User-Agent; Go's does. What is built on libcurl
    (git, cargo) and browsers print nothing of it, but the page inside the tunnel.
    """
    agents = head.values(b"user-agent")
    return not agents or agents[0].startswith(b"Go-http-client/")


def _denial(services: Services, asked: Asked) -> Deny | None:
    """Why no protocol at all could pass to this target; None if one could."""
    if asked.host is None:
        return asked.denial
    raw, tls = judge.raw(services.policy, asked), judge.tls(services.policy, asked)
    if isinstance(raw, Allow) or not isinstance(tls, Deny) or judge.requests_granted(services.policy, asked):
        return services.unhealthy()
    return tls
