"""Decisions: cases, with every word of the refusal; and what no policy of ours may ever do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloister.policy.decide import (
    Intercept,
    Splice,
    Treatment,
    bindings,
    decide_connection,
    decide_name,
    decide_request,
    treatment,
)
from cloister.policy.match import parse_pattern
from cloister.policy.names import parse_host, parse_host_port
from cloister.types import (
    DEFAULT_WEB_PORTS,
    Allow,
    Binding,
    Connection,
    Credential,
    Decision,
    Deny,
    HeaderInjection,
    HostPattern,
    Policy,
    Reach,
    Request,
    Rule,
    Transport,
)

FILE = tomllib.loads((Path(__file__).parents[2] / "cases/decisions.toml").read_text())
ANY = HostPattern(reach=Reach.UNSAFE_ANY, name="")
HOST = parse_host("api.example.com")
EMPTY = Policy()

# What a server may read as "/repos/acme/secret", or as something else than it says.
DODGES = (
    ("/repos/acme/../secret", "'.' or '..' segment"),
    ("/repos/acme/..", "'.' or '..' segment"),
    ("/repos/acme/./x", "'.' or '..' segment"),
    ("/repos/acme/%2e%2e/secret", "the escape '%2e'"),
    ("/repos/acme/%2E%2E/secret", "the escape '%2E'"),
    ("/repos/acme/.%2e/secret", "the escape '%2e'"),
    ("/repos/acme%2fsecret", "the escape '%2f'"),
    ("/repos/acme%5csecret", "the escape '%5c'"),
    ("/repos/acme/%252e%252e/secret", "the escape '%25'"),
    ("/repos/acme/%c0%ae%c0%ae/secret", "escapes are not UTF-8"),
    ("/repos/acme/%00", "the escape '%00'"),
    ("/repos/acme/x;/../secret", "';'"),
    ("/repos/acme/..;/secret", "';'"),
    ("/repos//acme/x", "'//'"),
    ("//repos/acme/x", "'//'"),
    ("/repos/acme\\..\\secret", r"'\\'"),
    ("/repos/acmé/x", "non-ASCII"),
    ("/repos/acme/\uff0e\uff0e/secret", "non-ASCII"),
    ("/repos/acme/x y", "a space"),
    ("/repos/acme/x#y", "'#'"),
    ("/repos/acme/%zz", "a broken escape"),
    ("/repos/acme/%2", "a broken escape"),
    ("repos/acme/x", "does not start with '/'"),
    ("http://api.example.com/repos/acme/x", "does not start with '/'"),
    ("*", "does not start with '/'"),
    ("", "does not start with '/'"),
)


def rule_of(table: dict[str, Any]) -> Rule:
    return Rule(
        id=table["id"],
        pattern=ANY if table["host"] == "any" else parse_pattern(table["host"]),
        ports=frozenset(table.get("ports", DEFAULT_WEB_PORTS)),
        transport=Transport(table.get("transport", "web")),
        methods=frozenset(table.get("methods", ())),
        paths=tuple(table.get("paths", ())),
    )


def credential_of(table: dict[str, Any]) -> Credential:
    binding = Binding(
        pattern=parse_pattern(table["host"]),
        injection=HeaderInjection(name="authorization", template="Bearer {}"),
        ports=frozenset(table.get("ports", [443])),
        paths=tuple(table.get("paths", ())),
    )
    return Credential(
        name=table["name"], source="env:X", bindings=(binding,), placeholder="placeholder-" + table["name"]
    )


POLICIES = {
    name: Policy(
        bans=tuple(map(rule_of, table.get("bans", ()))),
        grants=tuple(map(rule_of, table.get("grants", ()))),
        credentials=tuple(map(credential_of, table.get("credentials", ()))),
        passthrough=tuple(map(parse_pattern, table.get("passthrough", ()))),
    )
    for name, table in FILE["policies"].items()
}


def decided(policy: Policy, case: dict[str, Any]) -> tuple[Decision | Treatment, str]:
    """The decision, and what its reason calls the target."""
    if "tls" in case:
        host, port = parse_host_port(case["tls"])
        return treatment(policy, host, port), case["tls"]
    if "name" in case:
        return decide_name(policy, parse_host(case["name"])), case["name"]
    if "request" in case:
        method, target, path = case["request"].split(" ", 2)
        host, port = parse_host_port(target)
        return decide_request(policy, Request(host=host, port=port, method=method, path=path)), target
    transport = Transport.WEB if "web" in case else Transport.TCP
    target = case[transport.value]
    host, port = parse_host_port(target)
    return decide_connection(policy, Connection(host=host, port=port, transport=transport)), target


def words_of(case: dict[str, Any]) -> str:
    kind = next(key for key in ("name", "web", "tcp", "tls", "request") if key in case)
    return f"{case['policy']}-{kind}-{case[kind]}"


@pytest.mark.parametrize("case", FILE["case"], ids=words_of)
def test_decisions(case: dict[str, Any]) -> None:
    policy = POLICIES[case["policy"]]
    decision, target = decided(policy, case)
    if "allowed" in case:
        assert isinstance(decision, Allow), decision
        assert decision.rule.id == case["allowed"]
        assert decision.reason == f'"{target}" is granted by "{case["allowed"]}"'
    elif "spliced" in case:
        assert isinstance(decision, Splice), decision
        assert decision.rule.id == case["spliced"]
    elif "intercepted" in case:
        assert decision == Intercept()
        host, port = parse_host_port(target)
        assert [credential.name for credential, _ in bindings(policy, host, port)] == case["intercepted"]
    else:
        assert decision == Deny(reason=case["refused"], rule=case.get("rule"), ask=case.get("ask", ""))


def test_an_empty_policy_denies_by_default_for_decide_name() -> None:
    assert isinstance(decide_name(EMPTY, HOST), Deny)


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("port", [22, 80, 443, 65535])
def test_an_empty_policy_denies_by_default_for_decide_connection(port: int, transport: Transport) -> None:
    asked = Connection(host=HOST, port=port, transport=transport)
    assert isinstance(decide_connection(EMPTY, asked), Deny)


@pytest.mark.parametrize("method", ["GET", "CONNECT", "", "get"])
@pytest.mark.parametrize("path", ["/", "", "*", "/.."])
def test_an_empty_policy_denies_by_default_for_decide_request(method: str, path: str) -> None:
    assert isinstance(decide_request(EMPTY, Request(host=HOST, port=80, method=method, path=path)), Deny)


@pytest.mark.parametrize("port", [22, 80, 443, 65535])
def test_an_empty_policy_denies_by_default_for_treatment(port: int) -> None:
    assert isinstance(treatment(EMPTY, HOST, port), Deny)
    # Neither a credential nor passthrough grants anything by itself.
    only = Policy(
        credentials=(credential_of({"name": "c", "host": "api.example.com", "ports": [port]}),),
        passthrough=(parse_pattern("api.example.com"),),
    )
    assert isinstance(treatment(only, HOST, port), Deny)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_what_is_spliced_could_pass_unread_and_what_is_intercepted_could_be_granted(policy: Policy) -> None:
    """The treatment of TLS never gives more than the decisions on connections and requests do."""
    for text in (
        "api.example.com",
        "half.example.com",
        "m.example.com",
        "key.example.com",
        "pin.example.com",
    ):
        for port in (80, 443):
            host = parse_host(text)
            found = treatment(policy, host, port)
            unread = decide_connection(policy, Connection(host=host, port=port, transport=Transport.WEB))
            if isinstance(found, Splice):
                assert isinstance(unread, Allow)
            if isinstance(unread, Allow):
                assert not isinstance(found, Deny)


def test_a_policy_of_bans_alone_denies_what_it_does_not_name() -> None:
    policy = Policy(bans=(Rule(id="ban", pattern=parse_pattern("other.example.com")),))
    assert isinstance(decide_name(policy, HOST), Deny)
    asked = Connection(host=HOST, port=443, transport=Transport.WEB)
    assert isinstance(decide_connection(policy, asked), Deny)
    assert isinstance(decide_request(policy, Request(host=HOST, port=80, method="GET", path="/")), Deny)


@pytest.mark.parametrize("host", ["api.example.com", "*.example.com"])
@pytest.mark.parametrize(("path", "fault"), DODGES)
def test_a_path_that_can_be_read_in_two_ways_passes_no_path_rule(path: str, fault: str, host: str) -> None:
    rule = Rule(id="glob", pattern=parse_pattern(host), ports=frozenset({80}), paths=("/**",))
    asked = Request(host=HOST, port=80, method="GET", path=path)
    granted = decide_request(Policy(grants=(rule,)), asked)
    assert isinstance(granted, Deny), "the grant was widened"
    assert granted.rule == "glob"
    assert granted.reason.startswith('"glob" judges paths, and this one can be read in two ways: ')
    assert fault in granted.reason
    whole = Rule(id="whole", pattern=parse_pattern(host))
    banned = decide_request(Policy(bans=(rule,), grants=(whole,)), asked)
    assert isinstance(banned, Deny), "the ban was dodged"
    # Without the path rule it passes: nothing but the rule refuses it.
    assert isinstance(decide_request(Policy(grants=(whole,)), asked), Allow)


def test_a_ban_of_every_granted_port_takes_the_name_away() -> None:
    grants = (
        Rule(id="one", pattern=parse_pattern("api.example.com"), ports=frozenset({80})),
        Rule(id="two", pattern=parse_pattern("*.example.com"), ports=frozenset({443})),
    )
    bans = (
        Rule(id="ban-80", pattern=parse_pattern("*.example.com"), ports=frozenset({80})),
        Rule(id="ban-443", pattern=parse_pattern("api.example.com"), ports=frozenset({443})),
    )
    decision = decide_name(Policy(bans=bans, grants=grants), HOST)
    assert isinstance(decision, Deny)
    assert decision.rule == "ban-80"
    assert isinstance(decide_name(Policy(bans=bans[:1], grants=grants), HOST), Allow)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_a_name_that_is_refused_has_no_port_that_is_allowed(policy: Policy) -> None:
    """DNS must not refuse what a connection would be granted, nor the other way about."""
    ports = DEFAULT_WEB_PORTS.union(*(rule.ports for rule in (*policy.bans, *policy.grants)))
    for text in ("api.example.com", "a.telemetry.example.com", "example.com", "db.example.org", "x.net"):
        host = parse_host(text)
        open_ports = [
            port
            for port in ports
            for transport in Transport
            if isinstance(
                decide_connection(policy, Connection(host=host, port=port, transport=transport)), Allow
            )
        ]
        if isinstance(decide_name(policy, host), Deny):
            assert open_ports == []
