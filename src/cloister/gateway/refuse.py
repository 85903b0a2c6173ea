"""Serve one refusal page, over TLS or not, and end the connection.

Rule 1: the page is worth one request: it is read (its head only), answered, and the connection closed.
Rule 2: a client that does not accept our certificate is only written to the audit log.
"""

from __future__ import annotations

import asyncio
import socket

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.clienthello import ClientHello
from cloister.gateway.judge import Asked
from cloister.gateway.services import Services
from cloister.gateway.wire import SocketWire, read_head
from cloister.policy.names import parse_host
from cloister.types import Deny


async def over_tls(
    services: Services, wire: SocketWire, asked: Asked, hello: ClientHello, denial: Deny, *, status: int = 403
) -> None:
    """Complete the handshake under the sandbox's CA, read a request, and answer it with the page."""
    services.refuse(denial, asked, protocol="tls", status=status)
    from cloister.gateway.tls import TlsWire  # ssl: see there

    subject = _subject(asked, hello)
    if subject is None:
        return
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            tls = TlsWire(wire, services.leaves.context(subject))
            await tls.handshake()
            untrusted = await read_head(tls, limit_bytes=strict.HEAD_LIMIT_BYTES)
            if untrusted is None:
                return
            head = strict.request_head(untrusted)
            page = services.page(denial, asked, status=status, untrusted_accept=accept(head))
            await tls.send(page.http1(head_only=head.method == "HEAD"))
            await tls.finish()
    except (OSError, TimeoutError, UntrustedInputError):
        pass  # the refusal is written; the client did not want to read it


async def over_http(
    services: Services,
    wire: SocketWire,
    asked: Asked,
    denial: Deny,
    *,
    head: strict.RequestHead | None = None,
    status: int = 403,
) -> None:
    """Answer a request to the proxy itself with the page, and end the connection."""
    method, path = (head.method, head.path) if head else (None, None)
    services.refuse(denial, asked, protocol="http", status=status, method=method, path=path)
    page = services.page(denial, asked, status=status, untrusted_accept=accept(head) if head else "")
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            await wire.send(page.http1(head_only=head is not None and head.method == "HEAD"))
            await wire.finish()
    except (OSError, TimeoutError):
        pass  # the refusal is written; the client did not want to read it


def accept(head: strict.RequestHead) -> str:
    """The Accept header, all its lines."""
    return b",".join(head.values(b"accept")).decode("latin-1")


def _subject(asked: Asked, hello: ClientHello) -> str | bytes | None:
    """For whom the certificate must be, so that the client goes on: its SNI, or what it dialled."""
    if hello.untrusted_server_name is not None:
        try:
            return parse_host(hello.untrusted_server_name).name
        except UntrustedInputError:
            pass  # perhaps an address in the SNI
    if asked.host is not None:
        return asked.host.name
    family = socket.AF_INET6 if ":" in asked.untrusted_target else socket.AF_INET
    try:
        return socket.inet_pton(family, asked.untrusted_target)
    except OSError:
        return None
