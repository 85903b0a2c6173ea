"""The refusal page: what it says, and that nothing untrusted breaks out of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.gateway.page import Refusal, page, wants_json

REFUSAL = Refusal(
    status=403,
    reason='no rule grants "evil.example.com:443"',
    untrusted_host="evil.example.com",
    port=443,
    ask='add "evil.example.com" to [network] allow',
)

TEXT = """\
Refused by cloister, the sandbox that this program runs in.
  host:   evil.example.com
  port:   443
  rule:   none
  reason: no rule grants "evil.example.com:443"
  to ask: add "evil.example.com" to [network] allow
Trying again, another mirror or weaker TLS checks will not help: ask the user.
"""


def test_text() -> None:
    head, _, body = page(REFUSAL).http1().partition(b"\r\n\r\n")
    assert body.decode() == TEXT
    assert head.decode().split("\r\n") == [
        'HTTP/1.1 403 Refused by cloister: no rule grants "evil.example.com:443"',
        "Content-Type: text/plain; charset=us-ascii",
        f"Content-Length: {len(TEXT)}",
        "X-Cloister-Refused: no-rule",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ]


def test_json() -> None:
    rendered = page(REFUSAL, untrusted_accept="application/json")
    assert json.loads(rendered.body) == {
        "error": 'refused by cloister: no rule grants "evil.example.com:443"',
        "refused_by": "cloister",
        "host": "evil.example.com",
        "port": 443,
        "rule": None,
        "reason": 'no rule grants "evil.example.com:443"',
        "ask": 'add "evil.example.com" to [network] allow',
    }


def test_head_only() -> None:
    assert page(REFUSAL).http1(head_only=True).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", True),
        ("application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*", True),
        ("application/vnd.pypi.simple.v1+json, text/html; q=0.1", True),
        ("text/html,application/xhtml+xml,application/json;q=0.9", False),
        ("text/plain", False),
        ("*/*, application/json", True),
    ],
)
def test_who_gets_json(accept: str, expected: bool) -> None:
    assert wants_json(accept) is expected


@given(
    st.text(max_size=700),
    st.text(max_size=700),
    st.text(max_size=60),
    st.sampled_from(["", "application/json"]),
)
def test_nothing_untrusted_breaks_out(reason: str, host: str, rule: str, accept: str) -> None:
    refusal = Refusal(status=403, reason=reason, untrusted_host=host, port=1, rule=rule, ask=reason)
    data = page(refusal, untrusted_accept=accept).http1()
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.count(b"\r\n") == 6
    assert all(0x20 <= byte <= 0x7E or byte in b"\r\n" for byte in data)
    assert f"Content-Length: {len(body)}".encode() in head
    if accept:
        assert json.loads(body)["port"] == 1
    else:
        assert body.count(b"\n") <= 7
