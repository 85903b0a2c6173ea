"""Host patterns: cases, and any text at all."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.policy.match import PatternError, covers, overlaps, parse_destination, parse_pattern
from cloister.policy.names import parse_host
from cloister.types import DEFAULT_WEB_PORTS, HostPattern, Reach

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/patterns.toml").read_text())["case"]
ANY = HostPattern(reach=Reach.UNSAFE_ANY, name="")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["input"] or "empty")
def test_patterns(case: dict[str, Any]) -> None:
    if "why" in case:
        with pytest.raises(PatternError, match=case["why"]) as caught:
            parse_destination(case["input"])
        assert caught.value.expected, "a fault says what was expected"
        return
    destination = parse_destination(case["input"])
    assert sorted(destination.ports) == case["ports"]
    assert destination.grant_ports == (frozenset(case["ports"]) or DEFAULT_WEB_PORTS)
    assert destination.transport.value == case["transport"]
    for name in case["covers"]:
        assert covers(destination.pattern, parse_host(name)), name
    for name in case["not"]:
        assert not covers(destination.pattern, parse_host(name)), name


@given(st.text())
def test_any_text_is_a_pattern_or_a_pattern_error(text: str) -> None:
    try:
        destination = parse_destination(text)
    except PatternError:
        return
    assert destination.pattern.reach is not Reach.UNSAFE_ANY, "nobody can write a pattern for any host"
    assert parse_pattern(str(destination.pattern)) == destination.pattern


@pytest.mark.parametrize("name", ["example.com", "a.b.example.org"])
def test_any_covers_public_names(name: str) -> None:
    assert covers(ANY, parse_host(name))


@pytest.mark.parametrize(
    "name",
    ["localhost", "intranet", "printer.local", "metadata.google.internal", "x.onion", "router.lan", "a.test"],
)
def test_any_does_not_cover_names_that_are_never_public(name: str) -> None:
    assert not covers(ANY, parse_host(name))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.example.com", "a.example.com", True),
        ("a.example.com", "*.example.com", True),
        ("example.com", "*.example.com", False),
        ("*.b.example.com", "*.example.com", True),
        ("*.aexample.com", "*.example.com", False),
        ("*.example.org", "*.example.com", False),
    ],
)
def test_overlaps_is_symmetric(one: str, other: str, expected: bool) -> None:
    first, second = parse_pattern(one), parse_pattern(other)
    assert overlaps(first, second) is overlaps(second, first) is expected
    assert overlaps(first, ANY)
