"""Decide what may leave the sandbox: a name's answer, a connection's bytes, a request.

Rule 1: the answer is Deny unless a grant says otherwise. An empty policy denies everything.
Rule 2: bans win over grants.
Rule 3: a rule with methods or paths judges requests only, so TLS under it is terminated. Bytes that cannot be read
        (raw TCP, a host of `passthrough`) never pass under it, neither by such a grant nor past such a ban.
Rule 4: every refusal says why and what the user types to allow it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloister.errors import UntrustedInputError
from cloister.policy.match import covers
from cloister.policy.paths import canonical_path, covers_path
from cloister.types import (
    DEFAULT_WEB_PORTS,
    Allow,
    Binding,
    Connection,
    Credential,
    Decision,
    Deny,
    Host,
    Policy,
    Request,
    Rule,
    Transport,
)


def decide_name(policy: Policy, host: Host) -> Decision:
    """May DNS answer this name at all? Yes if something could be reached under it on at least one port."""
    bans = [ban for ban in policy.bans if covers(ban.pattern, host)]
    grants = [grant for grant in policy.grants if covers(grant.pattern, host)]
    whole_bans = [ban for ban in bans if not judges_requests(ban)]
    banned_ports = frozenset[int]().union(*(ban.ports for ban in whole_bans))
    for grant in grants:
        if not grant.ports <= banned_ports:
            return Allow(rule=grant, reason=f'"{host}" is granted by "{grant.id}"')
    if whole_bans:
        return _banned(whole_bans[0], str(host))
    return Deny(reason=f'no rule names "{host}"', ask=_ask(f"{host}"))


def decide_connection(policy: Policy, connection: Connection) -> Decision:
    """May bytes that nobody reads flow to this name and port? For TLS (transport WEB) and raw TCP."""
    host, port = connection.host, connection.port
    target = f"{host}:{port}"
    for ban in _at(policy.bans, host, port):
        if judges_requests(ban):
            return _unreadable(ban, target)
        return _banned(ban, target)
    grants = list(_at(policy.grants, host, port))
    for grant in grants:
        if not judges_requests(grant) and _carries(grant, connection.transport):
            return Allow(rule=grant, reason=f'"{target}" is granted by "{grant.id}"')
    if limited := [grant for grant in grants if judges_requests(grant)]:
        return _unreadable(limited[0], target)
    if grants:  # only a web grant, and raw TCP was asked for
        return Deny(
            reason=f'"{grants[0].id}" grants TLS and HTTP on "{target}", not other protocols',
            rule=grants[0].id,
            ask=_ask(f"tcp://{target}"),
        )
    return _no_rule(policy, host, port, connection.transport)


def decide_request(policy: Policy, request: Request) -> Decision:
    """May this plain or decrypted HTTP request be forwarded?"""
    host, port = request.host, request.port
    target = f"{host}:{port}"
    bans = list(_at(policy.bans, host, port))
    grants = list(_at(policy.grants, host, port))
    path, fault = _canonical_or_fault(request.path)
    # Some servers read methods in any case, so a ban does; a grant does not (RFC 9110 section 9.1).
    for ban in bans:
        if not _covers_method(ban, request.method.upper()):
            continue
        if ban.paths and path is None:
            return _ambiguous(ban, fault)
        if _covers_path(ban, path):
            return _banned(ban, target)
    fitting = [grant for grant in grants if _covers_method(grant, request.method)]
    for grant in fitting:
        if _covers_path(grant, path):
            return Allow(rule=grant, reason=f'"{target}" is granted by "{grant.id}"')
    if fitting and path is None:
        return _ambiguous(fitting[0], fault)
    if grants:
        return Deny(
            reason=f'"{grants[0].id}" does not grant {_shown_method(request.method)} on this path',
            rule=grants[0].id,
            ask=_widen(grants[0], host),
        )
    return _no_rule(policy, host, port, Transport.WEB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """TLS may flow undecrypted, under this rule."""

    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Intercept:
    """TLS is terminated, and each request judged."""


Treatment = Splice | Intercept | Deny


def treatment(policy: Policy, host: Host, port: int) -> Treatment:
    """What happens to TLS to this name and port, before anything in it is read."""
    if any(covers(pattern, host) for pattern in policy.passthrough):
        decision = decide_connection(policy, Connection(host=host, port=port, transport=Transport.WEB))
        return Splice(rule=decision.rule) if isinstance(decision, Allow) else decision
    bans, grants = list(_at(policy.bans, host, port)), list(_at(policy.grants, host, port))
    for ban in bans:
        if not judges_requests(ban):
            return _banned(ban, f"{host}:{port}")
    if not grants:
        return _no_rule(policy, host, port, Transport.WEB)
    whole = [grant for grant in grants if not judges_requests(grant)]
    if bans or not whole or bindings(policy, host, port):
        return Intercept()
    return Splice(rule=whole[0])


def bindings(policy: Policy, host: Host, port: int) -> tuple[tuple[Credential, Binding], ...]:
    """Every credential that is bound to this host and port, on whatever path."""
    return tuple(
        (credential, binding)
        for credential in policy.credentials
        for binding in credential.bindings
        if port in binding.ports and covers(binding.pattern, host)
    )


def judges_requests(rule: Rule) -> bool:
    """Whether the rule can only be judged on a request that was read."""
    return bool(rule.methods or rule.paths)


def _at(rules: Iterable[Rule], host: Host, port: int) -> Iterable[Rule]:
    return (rule for rule in rules if port in rule.ports and covers(rule.pattern, host))


def _carries(grant: Rule, transport: Transport) -> bool:
    """A TCP grant carries any bytes, TLS and HTTP among them; a web grant does not carry raw TCP."""
    return grant.transport is Transport.TCP or transport is Transport.WEB


def _covers_method(rule: Rule, method: str) -> bool:
    return not rule.methods or method in rule.methods


def _covers_path(rule: Rule, path: str | None) -> bool:
    """`path` is None if it can be read in two ways: then only a rule for every path covers it."""
    return not rule.paths or (path is not None and any(covers_path(glob, path) for glob in rule.paths))


def _canonical_or_fault(untrusted_path: str) -> tuple[str | None, str]:
    try:
        return canonical_path(untrusted_path), ""
    except UntrustedInputError as error:
        return None, str(error)


def _ambiguous(rule: Rule, fault: str) -> Deny:
    return Deny(
        reason=f'"{rule.id}" judges paths, and this one can be read in two ways: {fault}', rule=rule.id
    )


def _banned(ban: Rule, target: str) -> Deny:
    return Deny(
        reason=f'"{target}" is banned by "{ban.id}"',
        rule=ban.id,
        ask=f'bans win over grants: remove "{ban.id}" from the configuration, then run: cloister trust',
    )


def _unreadable(rule: Rule, target: str) -> Deny:
    return Deny(
        reason=f'"{rule.id}" judges each request on "{target}"; what cannot be read does not pass',
        rule=rule.id,
        ask=f'use HTTP or HTTPS on "{target}", or a rule without methods and paths',
    )


def _no_rule(policy: Policy, host: Host, port: int, transport: Transport) -> Deny:
    others = sorted(
        {p for grant in policy.grants if covers(grant.pattern, host) for p in grant.ports} - {port}
    )
    granted = f" (granted: {', '.join(map(str, others))})" if others else ""
    scheme = "tcp://" if transport is Transport.TCP else ""
    suffix = "" if port in DEFAULT_WEB_PORTS and not scheme else f":{port}"
    return Deny(reason=f'no rule grants "{host}:{port}"{granted}', ask=_ask(f"{scheme}{host}{suffix}"))


def _widen(grant: Rule, host: Host) -> str:
    if grant.id.startswith("preset:"):
        return f"that host is for reading only; for all of it, {_ask(str(host))}"
    return f'widen methods or paths of the rule "{grant.id}", then run: cloister trust'


def _ask(entry: str) -> str:
    return f'add "{entry}" to [network] allow in cloister.toml, then run: cloister trust'


def _shown_method(untrusted_method: str) -> str:
    plain = untrusted_method.isascii() and untrusted_method.isalpha() and len(untrusted_method) <= 20
    return untrusted_method if plain else "this method"
