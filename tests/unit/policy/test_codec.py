"""The policy as JSON: what is written is read back, and anything else is a broken policy."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.policy.codec import BrokenPolicyError, parse_policy, policy_document
from cloister.types import HostPattern, Policy, Reach, Rule, Transport

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
POLICIES = st.builds(Policy, bans=st.lists(RULES).map(tuple), grants=st.lists(RULES).map(tuple))

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
