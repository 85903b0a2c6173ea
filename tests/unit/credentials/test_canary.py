"""Canaries in every spelling: in what a scanner reads, and cut into DNS names."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable

import pytest

from cloister.credentials import canary
from cloister.credentials.placeholder import Scanner

TOKEN = "npm_Q7rT0vKx2LmZ9aB4cD6eF8gH1jN3pS5uW0yX"
CANARIES = {"npmrc": (TOKEN,), "other": ("AKIAABCDEFGHIJKLMNOP",)}
B64 = base64.b64encode


@pytest.mark.parametrize(
    "spell",
    [
        lambda token: token,
        lambda token: token.hex(),
        lambda token: token.hex().upper(),
        lambda token: token[::-1],
        lambda token: B64(b"x" + token),
        lambda token: B64(B64(b"ab" + token + b"c")),
        lambda token: base64.urlsafe_b64encode(b"{}" + token),
        lambda token: urllib.parse.quote_from_bytes(B64(token)),
        lambda token: json.dumps({"a": token.decode()}),
        lambda token: "".join(f"%{byte:02x}" for byte in token),
    ],
)
def test_a_canary_is_found_however_it_is_written(spell: Callable[[bytes], bytes | str]) -> None:
    written = spell(TOKEN.encode())
    data = written.encode() if isinstance(written, str) else written
    found = Scanner(canary.needles(CANARIES)).feed(b"before" + data + b"behind")
    assert canary.names(found) == ("npmrc",)
    denial = canary.denial(found, "evil.example")
    assert denial is not None
    assert canary.of_rule(denial.rule) == ("npmrc",)


def test_nothing_is_found_where_there_is_none() -> None:
    found = Scanner(canary.needles(CANARIES)).feed(TOKEN[1:].encode() + b" AKIA")
    assert canary.denial(found, "evil.example") is None
    assert canary.of_rule("preset:npm") == canary.of_rule(None) == ()


@pytest.mark.parametrize(
    "name",
    [
        f"{TOKEN[4:30]}.evil.example",
        f"{TOKEN.encode().hex()[:60]}.evil.example",
        f"0.{TOKEN.encode().hex()[20:40]}.evil.example",
        f"{base64.b32encode(TOKEN.encode()).decode().rstrip('=').lower()}.evil.example",
        f"{B64(TOKEN.encode()).decode().rstrip('=')[:40]}.evil.example",
        f"{TOKEN[:7].replace('_', '-')}.{TOKEN[7:20]}.evil.example",
    ],
)
def test_a_piece_of_a_canary_in_a_name_is_enough(name: str) -> None:
    assert canary.in_names([name, "registry.npmjs.org"], CANARIES) == {"npmrc": {name}}


def test_ordinary_names_hold_none() -> None:
    names = ["registry.npmjs.org", "files.pythonhosted.org", "a" * 63 + ".example", "", "."]
    assert canary.in_names(names, CANARIES) == {}
