"""Names of hosts, wherever they are written: one canonical form that is no address, or a refusal."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from cloister.errors import UntrustedInputError
from cloister.gateway import judge, strict
from cloister.gateway.page import Refusal, page
from cloister.policy.match import PatternError, parse_destination
from cloister.policy.names import parse_host, parse_host_port

LABELS = (
    "example", "com", "xn--mnchen-3ya", "münchen", "1", "0x7f", "127", "0300", "0", "a_b", "-", "a-", "xn--", "xn--a",
    "\uff45\uff4e", "\u3002", "\uff0e", "\u00ad", "\u200d", "ß", "İ", "\u2488", "①②⑦", "%2e", "*", "[::1]", "ⓛocalhost",
)  # fmt: skip
NAMES = some.one_of(
    some.lists(some.sampled_from(LABELS), max_size=5).map(".".join),
    some.lists(some.one_of(some.sampled_from((*LABELS, ".", ":", "/", "@", "#", " ")), some.text(max_size=3)), max_size=6).map("".join),
    some.text(max_size=30),
)  # fmt: skip
PORTS = some.sampled_from(["", ":443", ":0", ":65536", ":+1", ":", ":१", ":443:443", ":00443"])


@given(NAMES)
def test_a_host_is_canonical_and_no_address(text: str) -> None:
    try:
        host = parse_host(text)
    except UntrustedInputError as error:
        assert str(error).isprintable()
        return
    name = host.name
    assert parse_host(name) == host
    assert name == name.lower()
    assert name.isascii()
    assert len(name) <= 253
    assert not set(name) & set(":/@#?%[] \\*")
    with pytest.raises(OSError):
        socket.inet_aton(name)


@given(NAMES, PORTS)
def test_a_host_and_its_port_are_those_that_were_written(name: str, port: str) -> None:
    text = name + port
    try:
        host, number = parse_host_port(text, default_port=80)
    except UntrustedInputError as error:
        assert str(error).isprintable()
        return
    assert str(number) == (text.rpartition(":")[2] if ":" in text else "80")
    assert 1 <= number <= 65535
    assert host == parse_host(text.partition(":")[0])


@given(NAMES, PORTS)
def test_a_connect_target_is_a_name_or_is_denied(name: str, port: str) -> None:
    try:
        strict.authority(name + port, default_port=None)
    except UntrustedInputError as error:
        assert str(error).isprintable()
        with pytest.raises(UntrustedInputError):
            judge.connect_target(name + port)
        return
    asked = judge.connect_target(name + port)
    assert (asked.host is None) == (asked.denial is not None)
    assert 1 <= asked.port <= 65535
    if asked.host is not None:
        assert asked.host == parse_host(name)


@given(some.sampled_from(["", "*.", "tcp://", "https://", "*"]), NAMES, PORTS)
def test_what_a_user_writes_is_a_destination_or_an_error(before: str, name: str, port: str) -> None:
    try:
        found = parse_destination(before + name + port)
    except PatternError as error:
        assert error.reason
        assert error.expected
        return
    assert parse_host(found.pattern.name).name == found.pattern.name
    assert all(1 <= number <= 65535 for number in found.grant_ports)


@given(
    some.text(max_size=80),
    some.text(max_size=80),
    some.text(max_size=40),
    some.sampled_from(["", "application/json"]),
)
def test_a_page_holds_what_it_says_and_nothing_breaks_out(
    reason: str, host: str, ask: str, accept: str
) -> None:
    refusal = Refusal(status=403, reason=reason, untrusted_host=host, port=1, rule=ask or None, ask=ask)
    head, _, body = page(refusal, untrusted_accept=accept).http1().partition(b"\r\n\r\n")
    parsed = strict.response_head(head + b"\r\n\r\n")
    assert (parsed.status, parsed.length) == (403, len(body))
    assert [name for name, _ in parsed.headers].count(b"x-cloister-refused") == 1
    if accept:
        assert json.loads(body)["port"] == 1
    else:
        assert body.count(b"\n") == 6 + bool(ask)


@given(some.text(min_size=1, max_size=20))
def test_control_plain_names_pass(text: str) -> None:
    plain = "".join(char for char in text.lower() if char.isascii() and char.isalnum())
    assume(plain)
    assert parse_host(f"{plain.upper()}.Example.com.").name == f"{plain}.example.com"
