"""Whatever stands in a configuration, a program prints or a peer says: an answer, or the one error that is meant."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import CredentialError
from cloister.gateway.control_server import answer
from cloister.gateway.vault import Vault
from cloister.secrets.program import expiry
from cloister.secrets.source import SOURCES, Context, SourceError, checked, parse
from tests.unit.gateway.test_vault import User, credential, vault

PIECES = st.sampled_from(
    ["/", "//", "?", "&", "=", "%", "%2f", "%zz", "-", "~", ".", "..", "[", "]", '"', "'", "\\", " ", "acme/widget",
     "app_id=1", "key=", "env:A", "arn:aws:iam::123456789012:role/a", "profile/", "source=", "api=https://", "https://[",
     "duration=900", "permissions=contents:read", "\0", "\n", "\ud800", "é"]
)  # fmt: skip


@settings(max_examples=400)
@given(scheme=st.sampled_from([*SOURCES, "x", ""]), pieces=st.lists(PIECES | st.text(max_size=5), max_size=8))
def test_any_text_is_a_source_or_a_source_error(scheme: str, pieces: list[str]) -> None:
    text = f"{scheme}:{''.join(pieces)}"
    try:
        source = parse(text)
    except SourceError as error:
        assert error.reason
        assert error.expected
    else:
        assert str(source) == text


@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error_that_does_not_show_them(content: bytes) -> None:
    source, context = parse("env:A"), Context(name="thing", environ={})
    try:
        value = checked(content, source, context).reveal()
    except CredentialError as error:
        assert len(content) < 8 or repr(content)[2:-1] not in str(error)
    else:
        assert value.decode().strip()
        assert not any(byte < 0x20 or byte == 0x7F for byte in value)
        assert content in (value, value + b"\n", value + b"\r\n", value + b"\r")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(at=JSON, within=JSON)
def test_an_expiry_is_a_number_or_an_error(at: object, within: object) -> None:
    try:
        found = expiry({"expires_at": at, "expires_in": within}, now=1000.0)
    except (ValueError, TypeError, OverflowError):
        return
    assert found is None or abs(found) < 1e13


@settings(max_examples=200)
@given(
    line=st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["op", "name", "x"]), JSON | st.sampled_from(["approve", "refuse", "one"])
    ).map(lambda value: json.dumps(value).encode())
)
def test_the_control_socket_answers_whatever_it_is_told(line: bytes) -> None:
    async def main() -> dict[str, object]:
        made: Vault = vault(User(), credential("one", "env:TOKEN", confirm=True))
        return answer(made, line)

    said = asyncio.run(main())
    assert len(json.dumps(said)) < 4096
    assert set(said) & {"error", "done", "pending", "credentials"}


def test_the_properties_can_fail() -> None:
    with pytest.raises(SourceError):
        parse("env:a b")
    with pytest.raises(CredentialError):
        checked(b"\x01", parse("env:A"), Context(name="thing", environ={}))
