"""What every connection's handler needs, made once when the gateway starts.

Rule 1: values and clerks only; no decision is taken here.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cloister.audit.log import Event
from cloister.gateway.allowance import Allowance
from cloister.gateway.bodies import Memory
from cloister.gateway.departures import Departures
from cloister.gateway.judge import Asked
from cloister.gateway.leaves import LeafCache
from cloister.gateway.page import Page, Refusal, page
from cloister.gateway.record import Record, printable
from cloister.gateway.splice import Splice
from cloister.gateway.upstream import Dialler, Upstream
from cloister.types import Deny, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.audit.log import Protocol, Via
    from cloister.gateway.http.pool import Pool
    from cloister.gateway.lure import Lure
    from cloister.gateway.vault import Vault

_ALARMS_LIMIT = 20  # on the terminal; the log has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds. Tunnels have none but TCP keepalive."""

    head_s: float = 10.0  # a ClientHello or an HTTP head, from the moment we wait for it
    handshake_s: float = 30.0  # for an upstream's answer to a ClientHello
    idle_s: float = 75.0  # between two requests, and between two reads of a request's body
    response_s: float = 600.0  # for a response's head, and between two reads of its body
    ended_s: float = 10.0  # the same, once a client of HTTP/1.x has ended its stream (docs/adr/0056)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Shared by all handlers. `splices` are the tunnels that are open; `watched` the placeholders by credential."""

    policy: Policy
    dialler: Dialler
    pool: Pool
    vault: Vault
    watched: dict[str, bytes]
    tell: Callable[[str], None]  # an alarm for the user's terminal
    record: Record
    leaves: LeafCache
    allowance: Allowance
    deadlines: Deadlines = field(default_factory=Deadlines)
    splices: set[Splice] = field(default_factory=set)
    released: Callable[[], None] = lambda: None  # a tunnel has ended
    alarmed: set[str] = field(default_factory=set)
    memory: Memory = field(default_factory=Memory)
    departures: Departures = field(default_factory=Departures)
    lure: Lure | None = None  # `cloister audit`: refused requests are read before they are refused

    def alarm(self, text: str, *, host: str) -> None:
        """Write an alarm, and tell the user of each kind once."""
        self.record.event(Event(kind="alarm", host=printable(host), text=text))
        if text not in self.alarmed and len(self.alarmed) < _ALARMS_LIMIT:
            self.alarmed.add(text)
            self.tell(text)

    def refuse(
        self,
        denial: Deny,
        asked: Asked,
        *,
        protocol: Protocol,
        status: int = 403,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        """Write a refusal to the audit log."""
        self.record.refusal(
            denial,
            untrusted_host=asked.untrusted_target,
            port=asked.port,
            via=asked.via,
            protocol=protocol,
            method=method,
            path=path,
            status=status,
        )

    def unfinished(
        self, asked: Asked, *, protocol: Protocol, rule: str, upstream: Upstream, sent_bytes: int
    ) -> None:
        """Write a connection that ended before it was joined, though bytes of it have left."""
        self.record.event(
            Event(
                kind="connect",
                host=printable(asked.untrusted_target),
                port=asked.port,
                via=asked.via,
                protocol=protocol,
                rule=rule,
                address=upstream.address,
                sent_bytes=sent_bytes,
                reason="ended within its handshake",
            )
        )

    @staticmethod
    def page(denial: Deny, asked: Asked, *, status: int = 403, untrusted_accept: str = "") -> Page:
        """The page for a refusal."""
        refusal = Refusal(
            status=status,
            reason=denial.reason,
            untrusted_host=asked.untrusted_target,
            port=asked.port,
            rule=denial.rule,
            ask=denial.ask,
        )
        return page(refusal, untrusted_accept=untrusted_accept)

    def unhealthy(self) -> Deny | None:
        """Why nothing new may leave: the audit log cannot be written (ADR 0040)."""
        if self.record.healthy:
            return None
        return Deny(
            reason="the audit log cannot be written, and nothing leaves unrecorded",
            ask="free some disk space, then try again",
        )

    def splice(
        self,
        client: socket.socket,
        upstream: Upstream,
        asked: Asked,
        *,
        protocol: Protocol,
        rule: str,
        to_upstream: bytes = b"",
        to_client: bytes = b"",
        already_sent_bytes: int = 0,
    ) -> None:
        """Join the two sockets until both have ended; write the connection's line then. Owns both."""
        started = time.monotonic()
        via: Via = asked.via

        def ended(splice: Splice) -> None:
            self.splices.discard(splice)
            if splice.error is not None and not isinstance(splice.error, OSError):
                self.record.internal_error(splice.error, where="splice")
            self.record.event(
                Event(
                    kind="connect",
                    host=printable(asked.untrusted_target),
                    port=asked.port,
                    via=via,
                    protocol=protocol,
                    rule=rule,
                    address=upstream.address,
                    sent_bytes=already_sent_bytes + splice.sent_bytes,
                    received_bytes=splice.received_bytes,
                    duration_ms=int((time.monotonic() - started) * 1000),
                )
            )
            self.released()

        joined = Splice(
            loop=asyncio.get_running_loop(),
            client=client,
            upstream=upstream.sock,
            allowance=self.allowance,
            on_end=ended,
        )
        self.splices.add(joined)
        joined.start(to_upstream=to_upstream, to_client=to_client)
