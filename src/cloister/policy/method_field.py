"""Find the field `_method`, by which web frameworks take another method than the request's (ATTACKS HTTP-7).

Rails, Laravel, Symfony, Express and others read it from the query and from the body: a form of either kind, or JSON.

Rule 1: no I/O, and bounded: of a field, as much is kept as a method and its name can have.
Rule 2: judged as it stands after each part of a body, so that nothing of a refused one completes a request. A value
        that is cut in its middle may so be refused although the whole would not.
Rule 3: names are read as the most generous server does: percent-encoded, in any case, and with what PHP takes for "_".
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_NAME = b"_method"
_KEPT_BYTES = 256
_PHP = bytes.maketrans(b" .[", b"___")
_SEPARATORS = re.compile(rb"[&;]")
_METHOD = re.compile(rb"\s*([A-Za-z][A-Za-z-]{0,30})")
_PART = re.compile(
    rb'name\s*=\s*"?\s*_method[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n([^\r\n]{0,40})', re.IGNORECASE
)
_MEMBER = re.compile(rb'"_method"\s*:\s*"([^"]{0,40})', re.IGNORECASE)
_JSON_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")


def in_query(query: bytes) -> frozenset[str]:
    """The methods that a query names, without its "?"."""
    return frozenset().union(*(_of_pair(pair) for pair in _SEPARATORS.split(query))) if query else frozenset()


class Body:
    """Looks at a body as it comes. `content_type` is that of its head."""

    def __init__(self, content_type: bytes) -> None:
        kind = content_type.lower()
        self._kept = b""
        self._look = (
            self._form
            if b"urlencoded" in kind
            else self._parts
            if b"multipart" in kind
            else self._json
            if b"json" in kind
            else None
        )

    @property
    def kept_bytes(self) -> int:
        """How much of the body is in memory."""
        return len(self._kept)

    def feed(self, data: bytes) -> frozenset[str]:
        """The methods that it names so far, at least those that it did not name before."""
        return frozenset() if self._look is None else self._look(data)

    def _form(self, data: bytes) -> frozenset[str]:
        *whole, last = _SEPARATORS.split(self._kept + data)
        self._kept = last[:_KEPT_BYTES]
        return frozenset().union(*(_of_pair(pair) for pair in (*whole, last)))

    def _parts(self, data: bytes) -> frozenset[str]:
        return self._found(_PART, data)

    def _json(self, data: bytes) -> frozenset[str]:
        return self._found(_MEMBER, data)

    def _found(self, pattern: re.Pattern[bytes], data: bytes) -> frozenset[str]:
        text = self._kept + data
        self._kept = text[-_KEPT_BYTES:]
        if b"\\u00" in text and pattern is _MEMBER:
            text = _JSON_ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text)
        if _NAME not in text.lower():
            return frozenset()
        return frozenset().union(*(_method(value) for value in pattern.findall(text)))


def _of_pair(pair: bytes) -> frozenset[str]:
    name, _, value = pair[:_KEPT_BYTES].partition(b"=")
    plain = unquote_to_bytes(name.replace(b"+", b" ")).lstrip(b" ").translate(_PHP).lower()
    return _method(unquote_to_bytes(value.replace(b"+", b" "))) if plain == _NAME else frozenset()


def _method(value: bytes) -> frozenset[str]:
    found = _METHOD.match(value)
    return frozenset() if found is None else frozenset({found[1].decode().upper()})
