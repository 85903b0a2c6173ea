"""`cloister why URL|HOST[:PORT]`: explain a decision without starting anything. Exit code 0 allowed, 1 refused.

Rule 1: it asks the judges that the gateway asks; it decides nothing itself, and fetches no credential.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass

from cloister.cli.place import workspace_around
from cloister.config.compile import Overrides, compile_project
from cloister.config.injection import written
from cloister.config.wording import quoted
from cloister.credentials.repository import git_service
from cloister.errors import UntrustedInputError, UsageError
from cloister.gateway import use
from cloister.messages import RequestHead
from cloister.policy.codec import parse_policy
from cloister.policy.decide import Intercept, Splice, decide_connection, decide_request, treatment
from cloister.policy.match import covers
from cloister.policy.names import parse_host, parse_port
from cloister.types import Allow, Connection, Decision, Deny, Host, Policy, Request, Transport

ALLOWED, REFUSED = 0, 1
# The schemes that people paste, with their ports; what is neither HTTP nor TLS needs a tcp:// rule.
_TLS_SCHEMES = {"https": 443, "wss": 443}
_PLAIN_SCHEMES = {"http": 80, "ws": 80}
_TCP_SCHEMES = {"tcp": None, "ssh": 22, "git": 9418, "postgres": 5432, "postgresql": 5432, "redis": 6379}
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110 section 5.6.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What the user asked about. `scheme` is empty for HOST[:PORT]."""

    scheme: str
    host_text: str
    port: int
    path: str
    query: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="URL|HOST[:PORT]", help="what the sandbox would ask for")
    parser.add_argument(
        "--method", metavar="M", default="GET", help="HTTP method, where requests are read (default: GET)"
    )
    parser.add_argument("--profile", metavar="NAME", help="as if this profile were chosen")
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")


def execute(arguments: argparse.Namespace) -> int:
    target = _parse_target(arguments.target)
    if not _METHOD.fullmatch(arguments.method):
        raise UsageError(
            f"--method: {quoted(arguments.method)} is no HTTP method", resolution="for example: GET"
        )
    root = workspace_around(arguments.workspace)
    plan = compile_project(root, os.environ, Overrides(profile=arguments.profile))
    policy = parse_policy(plan["policy"])
    decision = _decide(policy, target, arguments.method)
    match decision:
        case Allow(rule=rule, reason=reason):
            lines = [f"allowed: {reason}"]
            lines += [f"  note: {rule.note}"] if rule.note else []
            lines += _reading_lines(policy, target, arguments.method)
            lines += _pin_lines(plan["hosts"], target.host_text)
            code = ALLOWED
        case Deny(reason=reason, ask=ask):
            lines = [f"refused: {reason}", *([f"  → {ask}"] if ask else [])]
            code = REFUSED
    sys.stdout.write("\n".join([*lines, f"  profile: {plan['profile']}"]) + "\n")
    return code


def _decide(policy: Policy, target: _Target, method: str) -> Decision:
    """As the gateway would: by what is spoken there, which for HOST:PORT may be any of three."""
    try:
        host = parse_host(target.host_text)
    except UntrustedInputError as error:
        return Deny(reason=str(error), ask="name the host: the gateway judges names, never addresses")
    if target.scheme in _TCP_SCHEMES:
        return _connection(policy, host, target.port, Transport.TCP)
    request = Request(host=host, port=target.port, method=method, path=target.path)
    if target.scheme in _PLAIN_SCHEMES:
        return decide_request(policy, request)
    match treatment(policy, host, target.port):
        case Splice(rule=rule):
            return Allow(rule=rule, reason=f'"{host}:{target.port}" is granted by "{rule.id}"')
        case Intercept():
            refused = _credentials(policy, host, target, method)
            decision = decide_request(policy, request)
            return refused if isinstance(decision, Allow) and isinstance(refused, Deny) else decision
        case Deny() as denial:
            return denial


def _credentials(policy: Policy, host: Host, target: _Target, method: str) -> use.Uses | Deny:
    """The credentials that an intercepted request would get."""
    head = RequestHead(
        method=method, path=target.path, query=target.query, untrusted_authority=host.name, headers=()
    )
    return use.choose(use.bound(policy, host, target.port), head, host, tls=True)


def _reading_lines(policy: Policy, target: _Target, method: str) -> list[str]:
    """Whether TLS is decrypted there, and with which credential the request leaves."""
    host = parse_host(target.host_text)
    if target.scheme in _TCP_SCHEMES:
        return []
    if target.scheme in _PLAIN_SCHEMES or (not target.scheme and target.port == _PLAIN_SCHEMES["http"]):
        return ["  plain HTTP: read, and no credential is ever sent"]
    match treatment(policy, host, target.port):
        case Splice() if any(covers(pattern, host) for pattern in policy.passthrough):
            return ["  not decrypted: it is one of [network] passthrough"]
        case Splice():
            return ["  not decrypted: no credential and no rule of methods or paths needs it"]
        case Intercept():
            uses = _credentials(policy, host, target, method)
            lines = ["  decrypted: each request is judged"]
            return [*lines, *_credential_lines(uses), *_push_lines(policy, target, method)]
        case Deny():
            return []


def _credential_lines(uses: use.Uses | Deny) -> list[str]:
    if isinstance(uses, Deny):
        return []
    lines = [
        f'  credential "{one.credential.name}" is put in ({written(one.binding.injection)})'
        + (", after you have been asked" if one.credential.confirm else "")
        for one in uses.injected
    ]
    used = {one.credential.name for one in uses.injected}
    left_out = dict.fromkeys(one.credential.name for one in uses.withheld)
    lines += [
        f'  without credential "{name}": it is for other paths or repositories'
        for name in left_out
        if name not in used
    ]
    return lines or ["  no credential is bound to it"]


def _push_lines(policy: Policy, target: _Target, method: str) -> list[str]:
    service = git_service(method, target.path, target.query)
    if service is None or service.name != "receive-pack":
        return []
    if not policy.push.refs:
        return ["  a push: refused, as [git] push names no ref"]
    return [f"  a push: to {', '.join(policy.push.refs)} alone ([git] push)"]


def _connection(policy: Policy, host: Host, port: int, transport: Transport) -> Decision:
    return decide_connection(policy, Connection(host=host, port=port, transport=transport))


def _parse_target(text: str) -> _Target:
    scheme, separator, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("", text)
    known = {**_TLS_SCHEMES, **_PLAIN_SCHEMES, **_TCP_SCHEMES}
    if scheme and scheme not in known:
        raise UsageError(
            f"the scheme {quoted(scheme)} is not known", resolution=f"use one of: {', '.join(known)}"
        )
    resource, mark, query = rest.partition("#")[0].partition("?")
    authority, slash, path = resource.partition("/")
    if not text or any(character.isspace() for character in text):
        raise UsageError(
            f"{quoted(text)} is no URL", resolution="for example: cloister why https://api.example.com/v1"
        )
    authority = authority.rpartition("@")[2]
    host, port = _host_and_port(authority)
    default = known[scheme] if scheme else 443
    number = port if port is not None else default
    if number is None:
        raise UsageError(
            "tcp:// needs a port", resolution="for example: cloister why tcp://db.example.com:5432"
        )
    return _Target(
        scheme=scheme,
        host_text=host,
        port=number,
        path=slash + path or "/",
        query=query if mark else None,
    )


def _host_and_port(authority: str) -> tuple[str, int | None]:
    """An IPv6 literal, in brackets or not, stays whole: the judge of names says what is wrong with it."""
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]") or (":" in host and not host.endswith("]")):
        return authority, None
    try:
        return host, parse_port(port)
    except UntrustedInputError as error:
        raise UsageError(f"{quoted(authority)}: {error}") from None


def _pin_lines(hosts: object, host_text: str) -> list[str]:
    pin = hosts.get(parse_host(host_text).name) if isinstance(hosts, dict) else None
    if pin is None:
        return [
            "  the address is judged when it is resolved: private ones are refused unless a rule names "
            "them or your own [network.hosts] pins it"
        ]
    return [f"  pinned by you to {pin['address']}" + (f" port {pin['port']}" if pin["port"] else "")]
