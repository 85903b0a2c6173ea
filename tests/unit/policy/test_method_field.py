"""The field `_method` in queries and bodies: found however it is written, and nothing else taken for it."""

from __future__ import annotations

import json

import pytest

from cloister.policy import method_field

FORM, PARTS, JSON = (
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
    b"application/json",
)


@pytest.mark.parametrize(
    ("query", "methods"),
    [
        (b"_method=DELETE", {"DELETE"}),
        (b"a=1&_method=delete&b=2", {"DELETE"}),
        (b"a=1;_method=put", {"PUT"}),
        (b"_METHOD=Patch", {"PATCH"}),
        (b"%5Fmetho%64=%44ELETE", {"DELETE"}),
        (b"+_method=DELETE", {"DELETE"}),
        (b".method=DELETE", {"DELETE"}),  # PHP
        (b"[method=DELETE", {"DELETE"}),
        (b"_method=GET&_method=DELETE", {"GET", "DELETE"}),
        (b"_method=%20DELETE", {"DELETE"}),
        (b"_method=", set()),
        (b"_method", set()),
        (b"method=DELETE", set()),
        (b"a=_method=DELETE", set()),
        (b"x_method=DELETE", set()),
        (b"", set()),
    ],
)
def test_queries_and_forms(query: bytes, methods: set[str]) -> None:
    assert method_field.in_query(query) == methods
    assert method_field.Body(FORM).feed(query) == methods


def part(name: str, value: str, more: str = "") -> bytes:
    return f"--x\r\nContent-Disposition: form-data; name={name}\r\n{more}\r\n{value}\r\n".encode()


BODIES = [
    (FORM, b"a=" + b"x" * 5000 + b"&_method=DELETE&b=1", {"DELETE"}),
    (FORM, b"_method=DELETE", {"DELETE"}),
    (PARTS, part('"file"', "x" * 5000) + part('"_method"', "DELETE") + b"--x--\r\n", {"DELETE"}),
    (PARTS, part("_method", "DELETE") + b"--x--\r\n", {"DELETE"}),
    (PARTS, part('"_METHOD"', "delete", "Content-Type: text/plain\r\n") + b"--x--\r\n", {"DELETE"}),
    (PARTS, part('"method"', "DELETE") + part('"text"', "_method DELETE") + b"--x--\r\n", set()),
    (JSON, json.dumps({"a": "b", "_method": "DELETE", "c": 1}).encode(), {"DELETE"}),
    (JSON, b'{"_method" :\n"delete"}', {"DELETE"}),
    (JSON, b'{"\\u005fmethod": "D\\u0045LETE"}', {"DELETE"}),
    (JSON, b'{"text": "_method is DELETE"}', set()),
    (b"application/octet-stream", b"_method=DELETE", set()),
    (b"", b"_method=DELETE", set()),
]


@pytest.mark.parametrize(("kind", "body", "methods"), BODIES)
def test_a_body_whole_and_in_halves(kind: bytes, body: bytes, methods: set[str]) -> None:
    assert method_field.Body(kind).feed(body) == methods
    for cut in range(max(0, len(body) - 300), len(body)):
        looking = method_field.Body(kind)
        found = looking.feed(body[:cut]) | looking.feed(body[cut:])
        assert methods <= found, "what is seen too early is a beginning of it"
        assert all(any(one.startswith(early) for one in methods) for early in found)


@pytest.mark.parametrize(("kind", "body", "methods"), BODIES)
def test_a_body_byte_by_byte(kind: bytes, body: bytes, methods: set[str]) -> None:
    looking = method_field.Body(kind)
    found = frozenset[str]().union(*(looking.feed(body[at : at + 1]) for at in range(len(body))))
    assert methods <= found


def test_what_is_kept_is_bounded() -> None:
    for kind in (FORM, PARTS, JSON):
        looking = method_field.Body(kind)
        for _ in range(100):
            looking.feed(b"x" * 10_000)
        assert looking.kept_bytes <= 256
