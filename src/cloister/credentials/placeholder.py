"""Placeholders: what the sandbox sees in place of a credential, and where they hide in a request.

Rule 1: a placeholder has the shape that clients check, at least 80 bits, and no character that URLs, JSON, shells or
        forms would write in another way.
Rule 2: a request is searched for every way to write one: as it is, percent-encoded, with JSON's escapes, in base64
        (any alignment, both alphabets), and over the borders of parts.
Rule 3: a placeholder is worth nothing: a way to hide one that is not found (encrypted, in an archive) costs an alarm.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from cloister.credentials.needles import Needles
from cloister.messages import RequestHead

_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_HEX = "0123456789abcdef"
DEFAULT_SHAPE = "plain"

# prefix, alphabet, how many characters of it, suffix. Facts of each service's tokens.
_SHAPES: dict[str, tuple[str, str, int, str]] = {
    "plain": ("cloister_placeholder_", _ALPHANUMERIC, 32, ""),
    "anthropic": ("sk-ant-api03-", _ALPHANUMERIC, 93, "AA"),
    "anthropic-oauth": ("sk-ant-oat01-", _ALPHANUMERIC, 93, "AA"),
    "aws-key-id": ("AKIA", _UPPER, 16, ""),
    "aws-secret": ("", _ALPHANUMERIC, 40, ""),
    "cloudflare": ("", _ALPHANUMERIC, 40, ""),
    "crates": ("cio", _ALPHANUMERIC, 32, ""),
    "docker": ("dckr_pat_", _ALPHANUMERIC, 27, ""),
    "github": ("ghp_", _ALPHANUMERIC, 36, ""),
    "github-app": ("ghs_", _ALPHANUMERIC, 36, ""),
    "github-fine": ("github_pat_", _ALPHANUMERIC, 22, "_" + "0" * 59),
    "gitlab": ("glpat-", _ALPHANUMERIC, 20, ""),
    "google": ("AIza", _ALPHANUMERIC, 35, ""),
    "hex": ("", _HEX, 32, ""),
    "npm": ("npm_", _ALPHANUMERIC, 36, ""),
    "openai": ("sk-proj-", _ALPHANUMERIC, 48, ""),
    "openrouter": ("sk-or-v1-", _HEX, 64, ""),
    "pypi": ("pypi-", _ALPHANUMERIC, 64, ""),
    "slack": ("xoxb-", _ALPHANUMERIC, 40, ""),
    "stripe": ("sk_test_", _ALPHANUMERIC, 32, ""),
}
SHAPES = (*sorted(_SHAPES), "jwt", "uuid")

_STABLE_LEAST = 8  # characters of base64 below which a match would be chance


def make(shape: str, seed: bytes) -> str:
    """A placeholder of a shape (one of `SHAPES`); the same seed gives the same. KeyError for another shape."""
    if shape == "uuid":
        digits = _characters(_HEX, 32, seed)
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    if shape == "jwt":
        parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": "cloister", "exp": 4102444800}]
        head, body = (_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        return f"{head}.{body}.{_characters(_ALPHANUMERIC, 43, seed)}"
    prefix, alphabet, count, suffix = _SHAPES[shape]
    return prefix + _characters(alphabet, count, seed) + suffix


def stable_base64(text: bytes) -> tuple[bytes, ...]:
    """What stands in base64 wherever `text` is a part of what was encoded, for each alignment and alphabet."""
    found: dict[bytes, None] = {}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text)
        # The first character may hold bits of what came before, the last ones of what comes behind.
        first = (before * 8 + 5) // 6
        whole = encoded[first : (before + len(text)) * 8 // 6]
        if len(whole) >= _STABLE_LEAST:
            found[whole] = None
            found[whole.translate(_URL_SAFE)] = None
    return tuple(found)


def stable_base32(text: bytes) -> tuple[bytes, ...]:
    """The same in base32, in capitals and in small letters."""
    found: dict[bytes, None] = {}
    for before in range(5):
        encoded = base64.b32encode(bytes(before) + text)
        whole = encoded[(before * 8 + 4) // 5 : (before + len(text)) * 8 // 5]
        if len(whole) >= _STABLE_LEAST:
            found[whole] = None
            found[whole.lower()] = None
    return tuple(found)


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


@lru_cache(maxsize=8)
def _written(placeholders: tuple[tuple[str, bytes], ...]) -> tuple[list[tuple[str, bytes]], Needles]:
    """Every way to write each that needs no decoding of its surroundings."""
    named = [(name, needle) for name, text in placeholders for needle in (text, *stable_base64(text))]
    return named, Needles(needle for _, needle in named)


class Scanner:
    """Looks for placeholders in a stream. Names found so far are the result of each `feed`."""

    def __init__(self, placeholders: Mapping[str, bytes]) -> None:
        self._named, self._needles = _written(tuple(placeholders.items()))
        self._keep = self._needles.longest * 6  # as JSON's \uXXXX
        self._tail = b""
        self.found: frozenset[str] = frozenset()

    def feed(self, data: bytes) -> frozenset[str]:
        """Look at the next part."""
        window = self._tail + data if self._tail else data
        for view in _views(window):
            if self._needles.any_in(view):
                self.found |= {name for name, needle in self._named if needle in view}
        self._tail = window[-self._keep :]
        return self.found

    def find_in_head(self, request: RequestHead) -> frozenset[str]:
        """Look at path, query and headers."""
        values = [value for _, value in request.headers]
        return self.feed(b"\n".join([request.target.encode("latin-1"), *values]))


def _views(data: bytes) -> list[bytes]:
    """The ways to read some bytes."""
    views = [data]
    if b"%" in data:
        views.append(_PERCENT.sub(_from_percent, data))
    if b"\\" in data:
        views.append(_JSON_ESCAPE.sub(_from_json, data))
    return views


_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_JSON_ESCAPE = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|([\"/\\]))")
_from_percent: Callable[[re.Match[bytes]], bytes] = lambda match: bytes([int(match[1], 16)])  # noqa: E731
_from_json: Callable[[re.Match[bytes]], bytes] = lambda match: (  # noqa: E731
    bytes([int(match[1], 16)]) if match[1] else match[2]
)


def _characters(alphabet: str, count: int, seed: bytes) -> str:
    """`count` characters of an alphabet, from a hash of the seed."""
    import hashlib  # loads OpenSSL, 1.3 MB: not for a gateway, which makes none

    number = int.from_bytes(hashlib.shake_256(seed).digest(count + 16), "big")
    chosen = []
    for _ in range(count):
        number, index = divmod(number, len(alphabet))
        chosen.append(alphabet[index])
    return "".join(chosen)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
