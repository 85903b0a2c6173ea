"""The sandbox's only resolver: allowed names get stand-in addresses, everything else gets a refusal.

Rule 1: no question ever leaves this process. A name that is allowed is resolved when it is dialled, by
        `upstream.py`.
Rule 2: refused names are NXDOMAIN, not REFUSED (ADR 0020), with the reason as an Extended DNS Error.
Rule 3: `judge` does no I/O but the audit line, so that a UDP question costs one callback.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from cloister.errors import UntrustedInputError
from cloister.gateway import dns, judge
from cloister.gateway.names import PATTERN_NAMES_LIMIT, NameTable
from cloister.gateway.record import Record
from cloister.network import standin
from cloister.policy.decide import decide_name
from cloister.policy.names import parse_host
from cloister.types import Deny, Host, Policy

TTL_S = 30
_LOOPBACK = {dns.A: socket.inet_aton("127.0.0.1"), dns.AAAA: socket.inet_pton(socket.AF_INET6, "::1")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to send. `host` and `index` are set if sockets may have to be bound before it is sent."""

    data: bytes
    query: dns.Query
    host: Host | None = None
    index: int = 0


class Resolver:
    """Judges questions. `v6`: whether the sandbox's namespace has IPv6. `answers_all`: see lure.py."""

    def __init__(
        self, *, policy: Policy, names: NameTable, record: Record, v6: bool = True, answers_all: bool = False
    ) -> None:
        self._policy = policy
        self._names = names
        self._record = record
        self.v6 = v6
        self._answers_all = answers_all

    def judge(self, untrusted: bytes) -> Answer | None:
        """The answer to one message; None if it deserves none."""
        try:
            query = dns.parse(untrusted)
        except UntrustedInputError as error:
            self._record.dns("(malformed)", rule=None, reason=str(error), allowed=False)
            return None
        if not query.about_a_name:
            reason = "only a name's records are answered (no ANY, zone transfers, other classes or updates)"
            return self._refuse(query, reason, code=dns.REFUSED if query.opcode == 0 else dns.NOTIMP)
        name = query.untrusted_name.lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
            return Answer(data=dns.answer(query, address=_LOOPBACK.get(query.kind), ttl_s=TTL_S), query=query)
        try:
            host = parse_host(query.untrusted_name)
        except UntrustedInputError as error:
            return self._refuse(query, str(error))
        decision = decide_name(self._policy, host)
        if isinstance(decision, Deny):
            refused = self._refuse(query, decision.reason, rule=decision.rule)
            return self._lured(query, host) or refused
        index = self._names.index(host, spelled_out=judge.spelled_out(self._policy, host))
        if index is None:
            reason = f"more than {PATTERN_NAMES_LIMIT} names were asked for under patterns in this sandbox"
            return self._refuse(query, reason, rule=decision.rule.id)
        self._record.dns(host.name, rule=decision.rule.id, reason=decision.reason, allowed=True)
        return Answer(
            data=dns.answer(query, address=self._address(query.kind, index), ttl_s=TTL_S),
            query=query,
            host=host,
            index=index,
        )

    def failed(self, answer: Answer, reason: str) -> bytes:
        """SERVFAIL for a name that is allowed, but whose ports could not be bound."""
        self._record.dns(answer.query.untrusted_name, rule=None, reason=reason, allowed=False)
        return dns.refusal(answer.query, code=dns.SERVFAIL, reason=reason)

    def _lured(self, query: dns.Query, host: Host) -> Answer | None:
        """An address for a refused name, to see what would be sent there."""
        index = self._names.index(host, spelled_out=False) if self._answers_all else None
        if index is None:
            return None
        return Answer(
            data=dns.answer(query, address=self._address(query.kind, index), ttl_s=TTL_S), query=query
        )

    def _address(self, kind: int, index: int) -> bytes | None:
        if kind == dns.A:
            return socket.inet_aton(standin.v4(index))
        if kind == dns.AAAA and self.v6:
            return socket.inet_pton(socket.AF_INET6, standin.v6(index))
        return None

    def _refuse(
        self, query: dns.Query, reason: str, *, rule: str | None = None, code: int = dns.NXDOMAIN
    ) -> Answer:
        self._record.dns(query.untrusted_name, rule=rule, reason=reason, allowed=False)
        return Answer(
            data=dns.refusal(query, code=code, reason=f"refused by cloister: {reason}"), query=query
        )
