"""Canonical names: cases, and any text at all."""

from __future__ import annotations

import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_host, parse_host_port, parse_port

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/names.toml").read_text())["case"]


def given_name(case: dict[str, Any]) -> str:
    if case["input"] == "SURROGATE":  # TOML cannot write one
        return "a\udc80.example"
    return str(case["input"] * case.get("repeat", 1) + case.get("suffix", ""))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_names(case: dict[str, Any]) -> None:
    name = given_name(case)
    if "why" in case:
        with pytest.raises(UntrustedInputError, match=case["why"]):
            parse_host(name)
    else:
        assert parse_host(name).name == (name if case.get("canonical_is_input") else case["canonical"])


@given(st.one_of(st.text(), st.text(alphabet=string.ascii_letters + string.digits + "-._:%[]\\/ \0ü。１")))
@example("xn--")
@example("a。")
@example("\u00ad.example")  # a soft hyphen alone: nothing is left of the label
@example("٠.example")
def test_any_text_is_canonical_at_once_or_refused(text: str) -> None:
    try:
        host = parse_host(text)
    except UntrustedInputError as error:
        assert len(str(error)) < 120, "a reason never quotes the input at length"
        return
    assert parse_host(host.name) == host
    assert host.name.isascii()
    assert host.name == host.name.lower()
    assert len(host.name) <= 253
    assert not host.name.endswith(".")


@given(st.from_regex(r"[a-z]([a-z0-9]{0,10}[a-z])?(\.[a-z][a-z0-9]{0,10}){1,4}", fullmatch=True))
def test_plain_names_pass_unchanged_in_any_case(name: str) -> None:
    assert parse_host(name.upper()).name == parse_host(name + ".").name == name


@pytest.mark.parametrize("text", ["1", "443", "65535"])
def test_ports(text: str) -> None:
    assert parse_port(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "-1", "+1", " 1", "1 ", "01", "1e3", "٤٤٣", "999999999", "0x50"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInputError, match="1 to 65535"):
        parse_port(text)


def test_host_and_port() -> None:
    assert str(parse_host_port("API.example.com:8443")) == str((parse_host("api.example.com"), 8443))
    assert parse_host_port("api.example.com", default_port=443)[1] == 443


@pytest.mark.parametrize("text", ["api.example.com", "a.example:1:2", "[::1]:443", ":443", "a.example:"])
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInputError):
        parse_host_port(text)
