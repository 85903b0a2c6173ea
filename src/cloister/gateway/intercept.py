"""Serve the requests of one connection: terminate its TLS under the sandbox's CA, or read them as they come.

Rule 1: a certificate is made for a name only after the connection was judged to be for it (`judge.py`).
Rule 2: which protocol is spoken here and which one upstream are two questions, both settled by ALPN. What came over
        HTTP/1.1 leaves over HTTP/1.1; what came over HTTP/2 leaves as the upstream likes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloister.gateway.request import Request
from cloister.types import Deny

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.gateway.http.streams import Downstream
    from cloister.gateway.judge import Asked
    from cloister.gateway.services import Services
    from cloister.gateway.wire import SocketWire

_HTTP_2 = "h2"


async def over_tls(services: Services, wire: SocketWire, asked: Asked) -> None:
    """Serve a TLS connection whose hello has been judged; it still stands in the wire's buffer."""
    from cloister.gateway.tls import TlsWire  # ssl: see there

    if asked.host is None:
        return
    tls = TlsWire(wire, services.leaves.context(asked.host.name, intercepts=True))
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            await tls.handshake()
    except (OSError, TimeoutError) as error:
        reason = f"the client did not complete the TLS handshake with the sandbox's CA: {_words(error)}"
        services.refuse(Deny(reason=reason), asked, protocol="tls")
        return
    bad = _bad_request(services, asked, tls=True)
    if tls.selected_alpn_protocol == _HTTP_2:
        from cloister.gateway.http import h2_server  # h2: off the path of those who do not need it

        await h2_server.serve(
            tls, _handler(services, asked, tls=True), deadlines=services.deadlines, on_bad_request=bad
        )
        return
    from cloister.gateway.http import h1_server

    await h1_server.serve(
        tls,
        _handler(services, asked, tls=True),
        deadlines=services.deadlines,
        departures=services.departures,
        on_bad_request=bad,
    )


async def over_plain(
    services: Services, wire: SocketWire, asked: Asked | None, first: bytes | None = None
) -> None:
    """Serve plain HTTP. `first` is a head that has been read already; `asked` is None on the explicit proxy."""
    from cloister.gateway.http import h1_server

    await h1_server.serve(
        wire,
        _handler(services, asked, tls=False),
        deadlines=services.deadlines,
        departures=services.departures,
        on_bad_request=_bad_request(services, asked, tls=False),
        first=first,
    )


def _handler(
    services: Services, asked: Asked | None, *, tls: bool
) -> Callable[[Downstream], Awaitable[None]]:
    return lambda downstream: Request(services, asked, downstream, tls=tls).serve()


def _bad_request(
    services: Services, asked: Asked | None, *, tls: bool
) -> Callable[[str, int], Awaitable[bytes]]:
    async def answer(reason: str, status: int) -> bytes:
        from cloister.gateway.judge import THE_PROXY

        denial = Deny(reason=reason)
        shown = asked or THE_PROXY
        services.refuse(denial, shown, protocol="https" if tls else "http", status=status)
        return services.page(denial, shown, status=status).http1()

    return answer


def _words(error: BaseException) -> str:
    return getattr(error, "reason", None) or type(error).__name__
