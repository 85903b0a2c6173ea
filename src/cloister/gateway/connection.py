"""One TCP connection from the sandbox: find out what it speaks, judge it, and join it with its upstream.

Rule 1: a handler returns with its socket closed, or given to a splice; never neither.
Rule 2: nothing is dialled before the judgement, and every wait before it has a deadline.
Rule 3: a refusal is readable where the protocol lets us say anything: HTTP, and TLS under the sandbox's CA.
"""

from __future__ import annotations

import asyncio
import socket

from cloister.errors import UntrustedInputError
from cloister.gateway import clienthello, handshake, intercept, judge, refuse
from cloister.gateway.clienthello import ClientHello
from cloister.gateway.judge import Asked
from cloister.gateway.services import Services
from cloister.gateway.upstream import UpstreamError
from cloister.gateway.wire import SocketWire, take
from cloister.policy.decide import Intercept, Splice
from cloister.types import Allow, Deny, Host, Rule

_UPPER_CASE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


async def transparent(services: Services, wire: SocketWire, asked: Asked) -> None:
    """Serve a connection whose destination is known: dialled directly, or named by CONNECT."""
    decision = judge.raw(services.policy, asked)
    if isinstance(decision, Allow):
        await _tunnel_raw(services, wire, asked, decision)
        return
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            if not wire.buffer and not await wire.more():
                if asked.denial is not None and asked.via == "proxy":
                    services.refuse(asked.denial, asked, protocol="tcp")
                return  # else: connected and left, nothing was asked for
    except TimeoutError:
        reason = "sent nothing in time: neither TLS nor HTTP"
        services.refuse(asked.denial or Deny(reason=reason), asked, protocol="tcp")
        return
    first = wire.buffer[0]
    if first == clienthello.RECORD_HANDSHAKE:
        await _tls(services, wire, asked)
    elif first in _UPPER_CASE or first in b"\r\n":
        await intercept.over_plain(services, wire, asked)
    else:
        found = services.lure.look(bytes(wire.buffer), asked.untrusted_target) if services.lure else None
        services.refuse(found or Deny(reason=_not_web(decision)), asked, protocol="tcp")


async def _tunnel_raw(services: Services, wire: SocketWire, asked: Asked, allow: Allow) -> None:
    denial = services.unhealthy()
    if denial is not None or asked.host is None:
        services.refuse(denial or Deny(reason="no host"), asked, protocol="tcp")
        return
    try:
        upstream = await services.dialler.dial(asked.host, asked.port, allow.rule)
    except UpstreamError as error:
        services.refuse(
            Deny(reason=error.reason, rule=allow.rule.id), asked, protocol="tcp", status=error.status
        )
        return
    early = take(wire)
    services.splice(wire.detach(), upstream, asked, protocol="tcp", rule=allow.rule.id, to_upstream=early)


async def _tls(services: Services, wire: SocketWire, asked: Asked) -> None:
    try:
        async with asyncio.timeout(services.deadlines.head_s):
            while (hello := clienthello.parse(bytes(wire.buffer))) is None:
                if not await wire.more():
                    raise UntrustedInputError("the connection ended within the ClientHello")
    except UntrustedInputError as error:
        _close(services, asked, f"not TLS that can be judged: {error}")
        return
    except TimeoutError:
        _close(services, asked, "the ClientHello did not come in time")
        return
    match judge.hello(services.policy, asked, hello):
        case Deny() if services.lure is not None and judge.is_lost(services.policy, asked):
            await intercept.over_tls(services, wire, asked)  # no request to that name is granted either
        case Deny() as denial:
            await refuse.over_tls(services, wire, asked, hello, denial)
        case Intercept():
            await intercept.over_tls(services, wire, asked)
        case Splice(rule=rule) if asked.host is not None:
            if (unhealthy := services.unhealthy()) is not None:
                await refuse.over_tls(services, wire, asked, hello, unhealthy)
            else:
                await _splice_tls(services, wire, asked, host=asked.host, hello=hello, rule=rule)


async def _splice_tls(
    services: Services, wire: SocketWire, asked: Asked, *, host: Host, hello: ClientHello, rule: Rule
) -> None:
    try:
        upstream = await services.dialler.dial(host, asked.port, rule)
    except UpstreamError as error:
        denial = Deny(reason=error.reason, rule=rule.id)
        await refuse.over_tls(services, wire, asked, hello, denial, status=error.status)
        return
    behind = SocketWire(upstream.sock)
    try:
        await handshake.follow(wire, behind, hello, deadline_s=services.deadlines.handshake_s)
        behind.detach()
    except UntrustedInputError as error:
        _close(services, asked, str(error), rule)
        return
    except TimeoutError:
        _close(services, asked, "the TLS handshake was not answered in time", rule)
        return
    except OSError as error:
        _close(services, asked, f"the connection broke within the TLS handshake: {error.strerror}", rule)
        return
    except asyncio.CancelledError:  # the sandbox ends, and the hello has left
        services.unfinished(asked, protocol="tls", rule=rule.id, upstream=upstream, sent_bytes=hello.length)
        raise
    finally:
        behind.close()
    to_upstream, to_client = take(wire), take(behind)
    services.splice(
        wire.detach(),
        upstream,
        asked,
        protocol="tls",
        rule=rule.id,
        to_upstream=to_upstream,
        to_client=to_client,
        already_sent_bytes=hello.length,
    )


def _close(services: Services, asked: Asked, reason: str, rule: Rule | None = None) -> None:
    """Refuse TLS where no page can be shown. The socket is closed when the handler returns."""
    services.refuse(Deny(reason=reason, rule=rule.id if rule else None), asked, protocol="tls")


def _not_web(decision: Deny) -> str:
    return f"neither TLS nor HTTP, and {decision.reason}"


def prepare(sock: socket.socket) -> None:
    """What every accepted socket needs."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Who closed behind bytes that are not taken is only told of once its kernel has given up: docs/adr/0056.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
