"""The strict judge of HTTP heads: cases, limits, and any bytes at all."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import UntrustedInputError
from cloister.gateway import strict

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/http_heads.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, str]) -> None:
    head = case["head"].encode("latin-1")
    if "refused" not in case:
        assert strict.request_head(head)
        return
    with pytest.raises(UntrustedInputError) as caught:
        strict.request_head(head)
    assert case["refused"] in str(caught.value)


def test_parts_of_a_head() -> None:
    head = strict.request_head(b"GET /a%2fb?q=1?2 HTTP/1.1\r\nHOST: h.example:8080\r\nX:  y \r\n\r\n")
    assert (head.method, head.path, head.query) == ("GET", "/a%2fb", "q=1?2")
    assert head.untrusted_authority == "h.example:8080"
    assert head.headers[1] == (b"x", b"y")
    assert head.length == 0


@pytest.mark.parametrize("junk", [b"x", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_trailing_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(UntrustedInputError):
        strict.request_head(b"GET / HTTP/1.1\r\nHost: h.example\r\n\r\n" + junk)


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (b"X: " + b"a" * 8189, False),
        (b"X: " + b"a" * 8190, True),
        (b"\r\n".join([b"X: y"] * 127), False),
        (b"\r\n".join([b"X: y"] * 128), True),
        (b"\r\n".join([b"X: " + b"a" * 8000] * 8), False),
        (b"\r\n".join([b"X: " + b"a" * 8000] * 9), True),
    ],
)
def test_limits(lines: bytes, refused: bool) -> None:
    head = b"GET / HTTP/1.1\r\nHost: h.example\r\n" + lines + b"\r\n\r\n"
    if refused:
        with pytest.raises(UntrustedInputError):
            strict.request_head(head)
    else:
        assert strict.request_head(head)


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", False),
        (b"HTTP/1.1 200\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 1\n\n", True),
        (b"HTTP/2 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 099 OK\r\n\r\n", True),
    ],
)
def test_response_heads(head: bytes, refused: bool) -> None:
    if refused:
        with pytest.raises(UntrustedInputError):
            strict.response_head(head)
    else:
        assert strict.response_head(head).status == 200


@given(st.binary(max_size=300))
def test_any_bytes_raise_nothing_else(untrusted: bytes) -> None:
    for parse in (strict.request_head, strict.response_head):
        try:
            parse(untrusted)
        except UntrustedInputError as error:
            assert str(error).isprintable()


@given(st.text(max_size=80))
def test_any_authority_raises_nothing_else(untrusted: str) -> None:
    try:
        host, port = strict.authority(untrusted, default_port=80)
    except UntrustedInputError:
        return
    assert 1 <= port <= 65535
    assert "@" not in host
