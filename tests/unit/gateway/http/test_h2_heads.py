"""What counts as a request of HTTP/2, case by case, and what goes on of one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cloister.errors import UntrustedInputError
from cloister.gateway.http import h2_heads
from tests.unit.gateway.http.peers import fields

CASES = tomllib.loads((Path(__file__).parents[3] / "cases/h2_requests.toml").read_text())["case"]


def untrusted(case: dict[str, object]) -> list[tuple[bytes, bytes]]:
    replace, more = case.get("replace", {}), case.get("more", [])
    if not isinstance(replace, dict) or not isinstance(more, list):
        raise AssertionError(case)
    good = {name.decode(): value.decode("latin-1") for name, value in fields()} | replace
    pairs = [(name, value) for name, value in good.items() if value] + [(pair[0], pair[1]) for pair in more]
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_heads(case: dict[str, object]) -> None:
    ended = bool(case.get("ended"))
    if reason := case.get("reason"):
        with pytest.raises(UntrustedInputError, match=str(reason)):
            h2_heads.request_head(untrusted(case), ended=ended)
    else:
        assert h2_heads.request_head(untrusted(case), ended=ended).untrusted_authority == "api.example.com"


def test_too_many_headers() -> None:
    with pytest.raises(UntrustedInputError, match="too many"):
        h2_heads.request_head(fields(b"/", *[(b"x", b"y")] * 125), ended=True)


def test_what_goes_on() -> None:
    head = h2_heads.request_head(
        fields(
            b"/a?b=c?d",
            (b"cookie", b"a=1"),
            (b"te", b"trailers"),
            (b"x-a", b"1"),
            (b"cookie", b"b=2"),
            (b"expect", b"100-continue"),
            (b"proxy-authorization", b"Basic secret"),
            method=b"POST",
        ),
        ended=False,
    )
    assert (head.path, head.query, head.length, head.expects_continue) == ("/a", "b=c?d", None, True)
    assert head.headers == ((b"x-a", b"1"), (b"te", b"trailers"), (b"cookie", b"a=1; b=2"))


def test_trailers_without_what_belongs_to_the_head() -> None:
    kept = h2_heads.trailers(
        [(b"grpc-status", b"0"), (b"authorization", b"x"), (b"host", b"y"), (b":path", b"/")]
    )
    assert kept == ((b"grpc-status", b"0"),)
    assert h2_heads.trailers([(b"grpc-status", b"0\r\nx: y")]) == ()


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"0x1", b"abc", b"099"])
def test_bad_statuses(status: bytes) -> None:
    with pytest.raises(UntrustedInputError, match="status"):
        h2_heads.status(((b":status", status),))


@given(
    some.lists(
        some.tuples(
            some.sampled_from([b":method", b":path", b":authority", b":scheme", b"host", b"cookie", b"te"])
            | some.binary(max_size=4),
            some.sampled_from([b"GET", b"/", b"https", b"api.example.com"]) | some.binary(max_size=6),
        ),
        max_size=8,
    ),
    some.booleans(),
)
def test_whatever_comes_is_a_request_or_refused(untrusted: list[tuple[bytes, bytes]], ended: bool) -> None:
    try:
        head = h2_heads.request_head(untrusted, ended=ended)
    except UntrustedInputError:
        return
    assert head.untrusted_authority
    assert head.target.isascii()
    assert not any(b"\n" in value or b"\r" in value or b"\0" in value for _, value in head.headers)
