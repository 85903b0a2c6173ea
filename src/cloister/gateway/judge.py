"""Bring together what a connection claims about its destination, and ask the policy.

Rule 1: the name that DNS handed out (or that CONNECT named), the SNI, the `Host` header and an absolute
        target must all be one host, or nothing is dialled (ATTACKS ID-1 to ID-4, TLS-3).
Rule 2: a connection that was dialled by address has no name, so it is refused whatever it says inside.
Rule 3: no I/O; the answer is the policy's, with its rule and reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.clienthello import ClientHello
from cloister.gateway.strict import Form
from cloister.messages import RequestHead
from cloister.policy import method_field
from cloister.policy.decide import (
    Splice,
    Treatment,
    decide_connection,
    decide_request,
    judges_requests,
    treatment,
)
from cloister.policy.match import covers
from cloister.policy.names import parse_host
from cloister.types import (
    DEFAULT_WEB_PORTS,
    Allow,
    Connection,
    Decision,
    Deny,
    Host,
    Policy,
    Reach,
    Request,
    Transport,
)

_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
_COMMON = ("GET", "POST", "PUT", "PATCH", "DELETE")
_UNHEARD_OF = "X-ANY"  # which only a rule without methods grants


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A connection as the sandbox asked for it.

    `host` is None if it named none that counts; `denial` then says why, and nothing on it can pass.
    `untrusted_target` is what to show for it: the name, or the address that was dialled.
    """

    via: Literal["transparent", "proxy"]
    host: Host | None
    port: int
    untrusted_target: str
    denial: Deny | None = None


THE_PROXY = Asked(via="proxy", host=None, port=80, untrusted_target="the proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedRequest:
    """A request that may be forwarded, to where."""

    host: Host
    port: int
    allow: Allow

    def authority(self, *, tls: bool) -> str:
        """As it stands in a Host header."""
        return self.host.name if self.port == (443 if tls else 80) else f"{self.host.name}:{self.port}"


def dialled(host: Host | None, address: str, port: int) -> Asked:
    """A transparent connection to `address`, which stands for `host`, or for no name."""
    if host is not None:
        return Asked(via="transparent", host=host, port=port, untrusted_target=host.name)
    denial = Deny(
        reason=f"dialled by address ({address}), not by name",
        ask="connect to the host's name: the sandbox's resolver must be asked for it",
    )
    return Asked(via="transparent", host=None, port=port, untrusted_target=address, denial=denial)


def connect_target(untrusted_authority: str) -> Asked:
    """A CONNECT request's target. UntrustedInputError if it is not `host:port`."""
    text, port = strict.authority(untrusted_authority, default_port=None)
    try:
        host = parse_host(text)
    except UntrustedInputError as error:
        denial = Deny(reason=f"CONNECT to what is no host name: {error}", ask="connect to the host's name")
        return Asked(via="proxy", host=None, port=port, untrusted_target=text, denial=denial)
    return Asked(via="proxy", host=host, port=port, untrusted_target=host.name)


def raw(policy: Policy, asked: Asked) -> Decision:
    """May bytes flow without a look at them (a `tcp://` rule)?"""
    if asked.host is None:
        return asked.denial or Deny(reason="the connection names no host")
    return decide_connection(policy, Connection(host=asked.host, port=asked.port, transport=Transport.TCP))


def tls(policy: Policy, asked: Asked) -> Treatment:
    """What happens to TLS to the name that was asked for, before its hello has been read?"""
    if asked.host is None:
        return asked.denial or Deny(reason="the connection names no host")
    return treatment(policy, asked.host, asked.port)


def hello(policy: Policy, asked: Asked, hello: ClientHello) -> Treatment:
    """What happens to this TLS connection?"""
    if asked.host is None:
        return tls(policy, asked)
    if hello.untrusted_server_name is None:
        return Deny(reason=f'TLS without a server name (SNI) on a connection to "{asked.host}"')
    try:
        named = parse_host(hello.untrusted_server_name)
    except UntrustedInputError as error:
        return Deny(reason=f"the server name (SNI) is no host name: {error}")
    if named != asked.host:
        return Deny(
            reason=f'the server name (SNI) is "{named}", but the connection was made to "{asked.host}"'
        )
    decision = tls(policy, asked)
    if isinstance(decision, Splice) and hello.encrypted:
        # An intercepted connection is ours to terminate, and we read only the outer hello: nothing can hide.
        return Deny(
            reason="the TLS hello carries encrypted_client_hello, which can hide another host's name (or is "
            "GREASE, which cannot be told apart)",
            ask="turn it off in the client: EncryptedClientHelloEnabled=false (Chromium), "
            "security.tls.ech.grease_probability=0 and network.dns.echconfig.enabled=false (Firefox)",
        )
    return decision


def request(
    policy: Policy, asked: Asked | None, head: RequestHead, form: Form, *, tls: bool
) -> GrantedRequest | Deny:
    """May this request be forwarded? `asked` is None for one to the explicit proxy itself."""
    try:
        default_port = asked.port if asked is not None and tls else 80
        text, port = strict.authority(head.untrusted_authority, default_port=default_port)
        host = parse_host(text)
    except UntrustedInputError as error:
        return (
            asked.denial
            if asked and asked.denial
            else Deny(reason=f"the Host header is no host name: {error}")
        )
    if asked is not None:
        if asked.host is None:
            return asked.denial or Deny(reason="the connection names no host")
        if (host, port) != (asked.host, asked.port):
            return Deny(
                reason=f'the request names "{host}:{port}", but the connection was made to '
                f'"{asked.host}:{asked.port}"'
            )
    if form is Form.AUTHORITY or head.method == "CONNECT":
        return Deny(reason="CONNECT inside a connection that already has a destination")
    if form is Form.ASTERISK or head.path == "*":
        return Deny(reason="OPTIONS * is not forwarded")
    allows = []
    for method in sorted(
        methods(head), key=lambda method: method == head.method
    ):  # the request's own method last
        decision = decide_request(policy, Request(host=host, port=port, method=method, path=head.path))
        if isinstance(decision, Deny):
            return decision
        allows.append(decision)
    return GrantedRequest(host=host, port=port, allow=allows[-1])


def methods(head: RequestHead) -> set[str]:
    """The request's method, and those that a server may take instead of it (ATTACKS HTTP-7), as its head tells them."""
    return {
        head.method,
        *(value.decode("latin-1") for name in _OVERRIDES for value in head.values_as_cgi(name)),
        *method_field.in_query((head.query or "").encode("latin-1", "replace")),
    }


def other_method(policy: Policy, granted: GrantedRequest, head: RequestHead, method: str) -> Deny | None:
    """Why a granted request must not be taken for one of this method, which its body names; None if it may."""
    request = Request(host=granted.host, port=granted.port, method=method, path=head.path)
    decision = decide_request(policy, request)
    return decision if isinstance(decision, Deny) else None


def depends_on_method(policy: Policy, granted: GrantedRequest, head: RequestHead) -> bool:
    """Whether there is a method with which this request would be refused."""
    return any(other_method(policy, granted, head, method) is not None for method in (*_COMMON, _UNHEARD_OF))


def shown(head: RequestHead) -> Asked:
    """What to show for a request to the explicit proxy."""
    try:
        text, port = strict.authority(head.untrusted_authority, default_port=80)
    except UntrustedInputError:
        text, port = head.untrusted_authority, 80
    return Asked(via="proxy", host=None, port=port, untrusted_target=text)


def is_lost(policy: Policy, asked: Asked) -> bool:
    """Whether nothing at all over TLS to the name that was asked for can be granted, whatever its hello says."""
    return asked.host is not None and isinstance(tls(policy, asked), Deny)


def requests_granted(policy: Policy, asked: Asked) -> bool:
    """Whether some plain HTTP request to this target could be granted, though no opaque bytes can."""
    host = asked.host
    return host is not None and any(
        judges_requests(grant) and asked.port in grant.ports and covers(grant.pattern, host)
        for grant in policy.grants
    )


def ports_on_demand(policy: Policy, host: Host) -> frozenset[int]:
    """The ports beside 80 and 443 that some grant opens on this name: they need sockets on its stand-ins."""
    granted = frozenset[int]().union(*(grant.ports for grant in policy.grants if covers(grant.pattern, host)))
    return granted - DEFAULT_WEB_PORTS


def spelled_out(policy: Policy, host: Host) -> bool:
    """Whether a grant names exactly this host, not a pattern under which the sandbox can invent names."""
    return any(
        grant.pattern.reach is Reach.EXACT and grant.pattern.name == host.name for grant in policy.grants
    )
