"""The policy as JSON: what is written is read back, and anything else is a broken policy."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.policy.codec import BrokenPolicyError, parse_policy, policy_document
from cloister.types import (
    AwsSignature,
    BasicInjection,
    Binding,
    Credential,
    HeaderInjection,
    HostPattern,
    Policy,
    PushRule,
    QueryInjection,
    Reach,
    Replacement,
    Rule,
    Transport,
)

LABELS = st.from_regex(r"[a-z]([a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(
    st.builds(HostPattern, reach=st.sampled_from([Reach.EXACT, Reach.SUBDOMAINS]), name=NAMES),
    st.just(HostPattern(reach=Reach.UNSAFE_ANY, name="")),
)
EMPTY: dict[str, object] = {
    "bans": [],
    "grants": [],
    "credentials": [],
    "passthrough": [],
    "push": {"refs": [], "delete": False, "force": False},
}
RULES = st.builds(
    Rule,
    id=st.text(min_size=1),
    pattern=PATTERNS,
    ports=st.frozensets(st.integers(1, 65535), min_size=1, max_size=4),
    transport=st.sampled_from(Transport),
    methods=st.frozensets(st.sampled_from(["GET", "POST", "PROPFIND"])),
    paths=st.lists(st.sampled_from(["/a/**", "/*/b", "/"])).map(tuple),
    address_ranges=st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8"])).map(tuple),
    note=st.text(),
)
TEXTS = st.text(max_size=12)
INJECTIONS = st.one_of(
    st.builds(HeaderInjection, name=TEXTS, template=TEXTS),
    st.builds(BasicInjection, user=TEXTS),
    st.builds(QueryInjection, name=TEXTS),
    st.just(Replacement()),
    st.just(AwsSignature()),
)
BINDINGS = st.builds(
    Binding,
    pattern=PATTERNS,
    injection=INJECTIONS,
    ports=st.frozensets(st.integers(1, 65535), min_size=1, max_size=3),
    paths=st.lists(st.sampled_from(["/a/**", "/b"])).map(tuple),
)
CREDENTIALS = st.builds(
    Credential,
    name=st.text(min_size=1, max_size=12),
    source=TEXTS,
    bindings=st.lists(BINDINGS, min_size=1, max_size=3).map(tuple),
    placeholder=st.from_regex(r"[A-Za-z0-9_]{16,40}", fullmatch=True),
    confirm=st.booleans(),
    repositories=st.lists(st.sampled_from(["acme/widget", "acme/*"])).map(tuple),
    read_only=st.booleans(),
)
POLICIES = st.builds(
    Policy,
    bans=st.lists(RULES, max_size=3).map(tuple),
    grants=st.lists(RULES, max_size=3).map(tuple),
    credentials=st.lists(CREDENTIALS, max_size=3).map(tuple),
    passthrough=st.lists(PATTERNS, max_size=3).map(tuple),
    push=st.builds(
        PushRule,
        refs=st.lists(st.sampled_from(["refs/heads/a", "refs/**"])).map(tuple),
        delete=st.booleans(),
        force=st.booleans(),
    ),
)

RULE: dict[str, Any] = {
    "id": "project:allow:api.example.com:8443",
    "reach": "exact",
    "name": "api.example.com",
    "ports": [8443],
    "transport": "web",
    "methods": ["GET"],
    "paths": ["/a/**"],
    "address_ranges": ["10.0.0.0/8"],
    "note": "a note",
}


@given(POLICIES)
def test_what_is_written_is_read_back(policy: Policy) -> None:
    document = policy_document(policy)
    assert parse_policy(json.loads(json.dumps(document))) == policy
    assert policy_document(parse_policy(document)) == document


def test_the_document_of_a_rule() -> None:
    """The names are a format: a stored plan and the gateway read them."""
    policy = Policy(
        grants=(
            Rule(
                id="project:allow:api.example.com:8443",
                pattern=HostPattern(reach=Reach.EXACT, name="api.example.com"),
                ports=frozenset({8443}),
                methods=frozenset({"GET"}),
                paths=("/a/**",),
                address_ranges=("10.0.0.0/8",),
                note="a note",
            ),
        )
    )
    assert policy_document(policy) == {**EMPTY, "grants": [RULE]}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "",
        1,
        {},
        {"bans": []},
        {"grants": []},
        {**EMPTY, "bans": [], "grants": [], "more": []},
        {**EMPTY, "bans": {}, "grants": []},
        {**EMPTY, "bans": [], "grants": None},
        {**EMPTY, "bans": [], "grants": "abc"},
        {**EMPTY, "bans": [], "grants": [None]},
        {**EMPTY, "bans": [], "grants": [[]]},
    ],
)
def test_a_document_of_another_shape_is_broken(document: object) -> None:
    with pytest.raises(BrokenPolicyError):
        parse_policy(document)


@pytest.mark.parametrize("key", sorted(RULE))
def test_a_rule_without_one_of_its_keys_is_broken(key: str) -> None:
    rule = {name: value for name, value in RULE.items() if name != key}
    with pytest.raises(BrokenPolicyError, match="exactly the keys"):
        parse_policy({**EMPTY, "grants": [rule]})


def test_a_rule_with_an_unknown_key_is_broken() -> None:
    with pytest.raises(BrokenPolicyError, match="exactly the keys"):
        parse_policy({**EMPTY, "grants": [{**RULE, "hots": "x"}]})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("id", 1, "expected a text"),
        ("id", "", "no id"),
        ("reach", "EXACT", "unknown reach"),
        ("reach", None, "expected a text"),
        ("reach", "any", "any host carries a name"),
        ("name", "", "is no name"),
        ("name", "API.example.com", "not canonical"),
        ("name", "api.example.com.", "not canonical"),
        ("name", "münchen.example.com", "not canonical"),
        ("name", "*.example.com", "is no name"),
        ("name", "192.0.2.1", "is no name"),
        ("name", ["api.example.com"], "expected a text"),
        ("ports", [], "no ports"),
        ("ports", 443, '"ports" is not a list'),
        ("ports", [0], "1 to 65535"),
        ("ports", [65536], "1 to 65535"),
        ("ports", [-1], "1 to 65535"),
        ("ports", ["443"], "1 to 65535"),
        ("ports", [443.0], "1 to 65535"),
        ("ports", [True], "1 to 65535"),
        ("ports", [443, None], "1 to 65535"),
        ("transport", "udp", "unknown transport"),
        ("transport", None, "expected a text"),
        ("methods", "GET", '"methods" is not a list'),
        ("methods", [1], "expected a text"),
        ("paths", "/a", '"paths" is not a list'),
        ("paths", [None], "expected a text"),
        ("address_ranges", "10.0.0.0/8", '"address_ranges" is not a list'),
        ("address_ranges", [8], "expected a text"),
        ("note", None, "expected a text"),
    ],
)
@pytest.mark.parametrize("which", ["bans", "grants"])
def test_a_rule_with_a_wrong_value_is_broken(which: str, key: str, value: object, why: str) -> None:
    document: dict[str, object] = dict(EMPTY)
    document[which] = [copy.deepcopy(RULE), {**RULE, key: value}]
    with pytest.raises(BrokenPolicyError, match=why):
        parse_policy(document)
    document[which] = [RULE]
    assert len(getattr(parse_policy(document), which)) == 1, "the rule beside it was whole"


def test_a_rule_for_any_host_has_no_name() -> None:
    rule = {**RULE, "reach": "any", "name": ""}
    assert parse_policy({**EMPTY, "grants": [rule]}).grants[0].pattern.reach is Reach.UNSAFE_ANY


CREDENTIAL: dict[str, Any] = {
    "name": "one",
    "source": "env:X",
    "placeholder": "placeholder_0123456789",
    "confirm": False,
    "repositories": ["acme/widget"],
    "read_only": False,
    "bindings": [
        {
            "reach": "exact",
            "name": "api.example.com",
            "ports": [443],
            "paths": [],
            "inject": {"kind": "header", "name": "authorization", "template": "Bearer {}"},
        }
    ],
}


def test_the_document_of_a_credential() -> None:
    """It names the source and never holds a value."""
    document = {**EMPTY, "credentials": [CREDENTIAL]}
    assert policy_document(parse_policy(document)) == document


@pytest.mark.parametrize("key", sorted(CREDENTIAL))
def test_a_credential_without_one_of_its_keys_is_broken(key: str) -> None:
    credential = {name: value for name, value in CREDENTIAL.items() if name != key}
    with pytest.raises(BrokenPolicyError):
        parse_policy({**EMPTY, "credentials": [credential]})


BINDING = CREDENTIAL["bindings"][0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("name", 1),
        ("source", None),
        ("placeholder", "short"),
        ("placeholder", "é" * 20),
        ("confirm", 1),
        ("confirm", "yes"),
        ("read_only", None),
        ("repositories", "acme/widget"),
        ("bindings", []),
        ("bindings", [None]),
        ("bindings", [{**BINDING, "ports": []}]),
        ("bindings", [{**BINDING, "ports": [0]}]),
        ("bindings", [{**BINDING, "name": "API.example.com"}]),
        ("bindings", [{**BINDING, "more": 1}]),
        ("bindings", [{**BINDING, "inject": None}]),
        ("bindings", [{**BINDING, "inject": {"kind": "raw"}}]),
        ("bindings", [{**BINDING, "inject": {"kind": "replace", "name": "x"}}]),
        ("bindings", [{**BINDING, "inject": {"kind": "aws-sigv4", "name": "x"}}]),
        ("bindings", [{**BINDING, "inject": {"kind": "header", "name": "x"}}]),
        ("bindings", [{**BINDING, "inject": {"kind": "basic", "user": 1}}]),
        ("bindings", [{**BINDING, "inject": {"kind": ["basic"], "user": "x"}}]),
        ("more", 1),
    ],
)
def test_a_damaged_credential_is_broken(key: str, value: object) -> None:
    with pytest.raises(BrokenPolicyError):
        parse_policy({**EMPTY, "credentials": [{**CREDENTIAL, key: value}]})


@pytest.mark.parametrize(
    "push",
    [None, [], {}, {"refs": []}, {"refs": [], "delete": 0, "force": False}, {"refs": "x", "delete": True, "force": True},
     {"refs": [], "delete": False, "force": None}, {"refs": [1], "delete": False, "force": False}],
)  # fmt: skip
def test_a_damaged_push_rule_is_broken(push: object) -> None:
    with pytest.raises(BrokenPolicyError):
        parse_policy({**EMPTY, "push": push})


@pytest.mark.parametrize("key", sorted(EMPTY))
def test_a_policy_without_one_of_its_keys_is_broken(key: str) -> None:
    """An older plan is none of ours."""
    with pytest.raises(BrokenPolicyError):
        parse_policy({name: value for name, value in EMPTY.items() if name != key})
