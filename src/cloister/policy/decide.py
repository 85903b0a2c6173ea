"""Decide what may leave the sandbox: a name's answer, a connection's bytes, a request.

Rule 1: the answer is Deny unless a grant says otherwise. An empty policy denies everything.
Rule 2: bans win over grants.
Rule 3: a rule with methods or paths judges requests only. Bytes that cannot be read (TLS, raw TCP) never pass
        under it, neither by such a grant nor past such a ban.
Rule 4: every refusal says why and what the user types to allow it.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloister.errors import UntrustedInputError
from cloister.policy.match import covers
from cloister.policy.paths import canonical_path, covers_path
from cloister.types import (
    DEFAULT_WEB_PORTS,
    Allow,
    Connection,
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
    if fault and (path_rules := [rule for rule in (*bans, *grants) if rule.paths]):
        return Deny(
            reason=f'"{path_rules[0].id}" judges paths, and this one can be read in two ways: {fault}',
            rule=path_rules[0].id,
        )
    for ban in bans:
        # Some servers read methods in any case, so a ban does; a grant does not (RFC 9110 section 9.1).
        if _covers_request(ban, request.method.upper(), path):
            return _banned(ban, target)
    for grant in grants:
        if _covers_request(grant, request.method, path):
            return Allow(rule=grant, reason=f'"{target}" is granted by "{grant.id}"')
    if grants:
        return Deny(
            reason=f'"{grants[0].id}" does not grant {_shown_method(request.method)} on this path',
            rule=grants[0].id,
            ask=f'widen methods or paths of the rule "{grants[0].id}", then run: cloister trust',
        )
    return _no_rule(policy, host, port, Transport.WEB)


def judges_requests(rule: Rule) -> bool:
    """Whether the rule can only be judged on a request that was read."""
    return bool(rule.methods or rule.paths)


def _at(rules: Iterable[Rule], host: Host, port: int) -> Iterable[Rule]:
    return (rule for rule in rules if port in rule.ports and covers(rule.pattern, host))


def _carries(grant: Rule, transport: Transport) -> bool:
    """A TCP grant carries any bytes, TLS and HTTP among them; a web grant does not carry raw TCP."""
    return grant.transport is Transport.TCP or transport is Transport.WEB


def _covers_request(rule: Rule, method: str, path: str) -> bool:
    if rule.methods and method not in rule.methods:
        return False
    return not rule.paths or any(covers_path(glob, path) for glob in rule.paths)


def _canonical_or_fault(untrusted_path: str) -> tuple[str, str]:
    try:
        return canonical_path(untrusted_path), ""
    except UntrustedInputError as error:
        return "", str(error)


def _banned(ban: Rule, target: str) -> Deny:
    return Deny(
        reason=f'"{target}" is banned by "{ban.id}"',
        rule=ban.id,
        ask=f'bans win over grants: remove "{ban.id}" from the configuration, then run: cloister trust',
    )


def _unreadable(rule: Rule, target: str) -> Deny:
    return Deny(
        reason=f'"{rule.id}" judges each request on "{target}"; what cannot be read (TLS) does not pass',
        rule=rule.id,
        ask=f'use plain HTTP on "{target}", or a rule without methods and paths',
    )


def _no_rule(policy: Policy, host: Host, port: int, transport: Transport) -> Deny:
    others = sorted(
        {p for grant in policy.grants if covers(grant.pattern, host) for p in grant.ports} - {port}
    )
    granted = f" (granted: {', '.join(map(str, others))})" if others else ""
    scheme = "tcp://" if transport is Transport.TCP else ""
    suffix = "" if port in DEFAULT_WEB_PORTS and not scheme else f":{port}"
    return Deny(reason=f'no rule grants "{host}:{port}"{granted}', ask=_ask(f"{scheme}{host}{suffix}"))


def _ask(entry: str) -> str:
    return f'add "{entry}" to [network] allow in cloister.toml, then run: cloister trust'


def _shown_method(untrusted_method: str) -> str:
    plain = untrusted_method.isascii() and untrusted_method.isalpha() and len(untrusted_method) <= 20
    return untrusted_method if plain else "this method"
