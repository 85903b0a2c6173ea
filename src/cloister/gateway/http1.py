"""Plain HTTP/1.1 from the sandbox, judged request by request.

Rule 1: every request on a kept-alive connection is judged anew, by its own host, method and path.
Rule 2: a refusal ends the connection, so that nothing can ride behind a refused request.
Rule 3: what is forwarded is written anew from parsed values (`exchange.py`).
Rule 4: a request of which a byte may have left is written to the audit log as a request, with what was sent,
        however it ended: the sandbox chooses how its requests end.
"""

from __future__ import annotations

import asyncio
import time

from cloister.audit.log import Event
from cloister.errors import UntrustedInputError
from cloister.gateway import judge, refuse, strict
from cloister.gateway.judge import Asked, GrantedRequest
from cloister.gateway.record import printable
from cloister.gateway.services import Services
from cloister.gateway.upstream import Upstream, UpstreamError
from cloister.gateway.wire import SocketWire, read_head
from cloister.types import Deny, Host


class Link:
    """The upstream connection that a client's connection holds while its requests go to one place."""

    __slots__ = ("_services", "upstream", "used", "where", "wire")

    def __init__(self, services: Services) -> None:
        self._services = services
        self.where: tuple[Host, int] | None = None
        self.wire: SocketWire | None = None
        self.upstream: Upstream | None = None
        self.used = False

    async def to(self, granted: GrantedRequest) -> tuple[SocketWire, Upstream]:
        """A live connection for this request. UpstreamError."""
        where = (granted.host, granted.port)
        self.used = self.wire is not None and self.where == where and not self.wire.stale()
        if self.wire is None or self.upstream is None or not self.used:
            self.close()
            self.upstream = await self._services.dialler.dial(granted.host, granted.port, granted.allow.rule)
            self.wire = SocketWire(self.upstream.sock)
            self.where = where
        return self.wire, self.upstream

    def close(self) -> None:
        if self.wire is not None:
            self.wire.close()
            self.wire = None


async def serve(
    services: Services, wire: SocketWire, asked: Asked | None, first: bytes | None = None
) -> None:
    """Serve requests until either side ends. `first` is a head that has been read already.

    `asked` is None on the explicit proxy, where each request names its host.
    """
    link = Link(services)
    try:
        while await _serve_one(services, wire, asked, link, first):
            first = None
    finally:
        link.close()


async def _serve_one(
    services: Services, wire: SocketWire, asked: Asked | None, link: Link, first: bytes | None
) -> bool:
    """Serve one request; False if the connection is over."""
    shown = asked or Asked(via="proxy", host=None, port=80, untrusted_target="the proxy")
    try:
        untrusted = first or await _next_head(services, wire, idle=link.wire is not None)
    except TimeoutError:
        if wire.buffer:
            await answer(services, wire, shown, Deny(reason="the HTTP head did not come in time"), status=408)
        return False
    except UntrustedInputError as error:
        await answer(services, wire, shown, Deny(reason=f"bad request: {error}"), status=400)
        return False
    if untrusted is None:
        return False
    try:
        head = strict.request_head(untrusted)
    except UntrustedInputError as error:
        await answer(services, wire, shown, Deny(reason=f"bad request: {error}"), status=400)
        return False
    if asked is None:
        shown = _shown(head)
        if head.form in (strict.Form.ORIGIN, strict.Form.ASTERISK):
            await answer(services, wire, shown, _HINT, head=head, status=400)
            return False
    granted = judge.request(services.policy, asked, head)
    if isinstance(granted, GrantedRequest):
        granted = services.unhealthy() or granted
    if isinstance(granted, Deny):
        await answer(services, wire, shown, granted, head=head)
        return False
    return await _forward(services, wire, link=link, head=head, granted=granted, shown=shown)


_HINT = Deny(
    reason="this is cloister's HTTP proxy, and the request names no host",
    ask="use it as a proxy (CONNECT host:port, or an http:// URL as the target), or connect directly",
)


async def _forward(
    services: Services,
    wire: SocketWire,
    *,
    link: Link,
    head: strict.RequestHead,
    granted: GrantedRequest,
    shown: Asked,
) -> bool:
    from cloister.gateway.exchange import Exchange, StaleUpstreamError  # h11: only for plain HTTP

    started = time.monotonic()
    exchange = Exchange(services.deadlines, wire, head, granted)

    def write(status: int | None, fault: str | None) -> None:
        services.record.event(
            Event(
                kind="request",
                host=granted.host.name,
                port=granted.port,
                via=shown.via,
                protocol="http",
                rule=granted.allow.rule.id,
                method=head.method,
                path=printable(head.path),
                status=status,
                address=link.upstream.address if link.upstream else None,
                sent_bytes=exchange.sent_bytes,
                received_bytes=exchange.received_bytes,
                duration_ms=int((time.monotonic() - started) * 1000),
                reason=fault,
            )
        )

    try:
        try:
            outcome = await exchange.run(*await link.to(granted), reused=link.used)
        except StaleUpstreamError:
            link.close()
            outcome = await exchange.run(*await link.to(granted), reused=False)
    except UpstreamError as error:
        link.close()
        denial = Deny(reason=error.reason, rule=granted.allow.rule.id)
        if exchange.left:
            write(error.status, error.reason)
        else:
            services.refuse(
                denial, shown, protocol="http", status=error.status, method=head.method, path=head.path
            )
        if not exchange.answered:
            await _show(services, wire, shown, denial, head=head, status=error.status)
        return False
    except BaseException as error:  # the end of the sandbox among them
        if exchange.left:
            write(None, f"cut short: {type(error).__name__}")
        raise
    write(outcome.status, outcome.fault)
    if outcome.switched is not None and link.wire is not None and link.upstream is not None:
        to_upstream, to_client = outcome.switched
        link.wire.detach()
        services.splice(
            wire.detach(),
            link.upstream,
            shown,
            protocol="http",
            rule=granted.allow.rule.id,
            to_upstream=to_upstream,
            to_client=to_client,
        )
        return False
    if not outcome.reuse_upstream:
        link.close()
    if not outcome.reuse_client:
        await wire.finish()
    return outcome.reuse_client


async def answer(
    services: Services,
    wire: SocketWire,
    asked: Asked,
    denial: Deny,
    *,
    head: strict.RequestHead | None = None,
    status: int = 403,
) -> None:
    """Refuse readably, and end the connection."""
    method, path = (head.method, head.path) if head else (None, None)
    services.refuse(denial, asked, protocol="http", status=status, method=method, path=path)
    await _show(services, wire, asked, denial, head=head, status=status)


async def _show(
    services: Services,
    wire: SocketWire,
    asked: Asked,
    denial: Deny,
    *,
    head: strict.RequestHead | None,
    status: int,
) -> None:
    page = services.page(denial, asked, status=status, untrusted_accept=refuse.accept(head) if head else "")
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            await wire.send(page.http1(head_only=head is not None and head.method == "HEAD"))
            await wire.finish()
    except (OSError, TimeoutError):
        pass  # the refusal is written; the client did not want to read it


async def _next_head(services: Services, wire: SocketWire, *, idle: bool) -> bytes | None:
    """The next head. Between two requests a client may rest for longer than within a head."""
    if idle and not wire.buffer:
        async with asyncio.timeout(services.deadlines.idle_s):
            if not await wire.more():
                return None
    async with asyncio.timeout(services.deadlines.head_s):
        return await read_head(wire, limit_bytes=strict.HEAD_LIMIT_BYTES)


def _shown(head: strict.RequestHead) -> Asked:
    """What to show for a request to the explicit proxy."""
    try:
        text, port = strict.authority(head.untrusted_authority, default_port=80)
    except UntrustedInputError:
        text, port = head.untrusted_authority, 80
    return Asked(via="proxy", host=None, port=port, untrusted_target=text)
