"""Published ports: what a user may write, and what is refused."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.network import plumb
from cloister.policy.published import (
    GATEWAY_PORTS,
    PortError,
    PublishedPort,
    collision,
    parse_document,
    parse_published,
)

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/ports.toml").read_text())["port"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_ports(case: dict[str, Any]) -> None:
    if "reason" in case:
        with pytest.raises(PortError) as caught:
            parse_published(case["text"])
        assert caught.value.reason == case["reason"]
        assert caught.value.expected
        return
    found = parse_published(case["text"])
    assert (found.host, found.sandbox, found.auto) == (case["host"], case["sandbox"], case.get("auto", False))
    assert str(found) == case["again"]
    assert parse_document([found.document()]) == (found,)


@given(st.text(max_size=30))
def test_any_text_is_a_port_that_is_not_the_gateways_or_a_fault(text: str) -> None:
    try:
        found = parse_published(text)
    except PortError as error:
        assert error.reason.isprintable()
    else:
        assert found.sandbox not in GATEWAY_PORTS
        assert 1 <= found.host <= 65535
        assert 1 <= found.sandbox <= 65535


def test_the_gateways_ports_are_those_that_the_plumber_binds() -> None:
    bound = {*plumb.WILDCARD_PORTS, plumb.DNS_PORT, plumb.PROXY_PORT}
    assert bound == GATEWAY_PORTS
    sockets = []
    try:
        sockets = plumb.listeners(socket.AF_INET, [])
    except OSError:
        pytest.skip("these ports are taken here")
    finally:
        for _, one in sockets:
            one.close()
    assert {what["port"] for what, _ in sockets} == GATEWAY_PORTS


def test_two_ports_cannot_share_one_of_this_machine() -> None:
    one, other = PublishedPort(host=8080, sandbox=3000), PublishedPort(host=8080, sandbox=4000)
    auto = PublishedPort(host=8080, sandbox=8080, auto=True)
    assert collision([one, other]) == other
    assert collision([one, one, auto, auto]) is None


@pytest.mark.parametrize(
    "damaged",
    [None, {}, [1], [{"host": 1}], [{"host": "x", "sandbox": 1}], "3000", [{"host": 1, "sandbox": 443}]],
)
def test_a_damaged_plan_is_no_plan(damaged: object) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        parse_document(damaged)
