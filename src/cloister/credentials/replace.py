"""Put values where their placeholders stand, encoded for the place.

Rule 1: only whole placeholders; what merely begins like one stays.
Rule 2: the value is written as its surroundings need it: escaped in JSON, percent-encoded in a form, path or query,
        encoded anew in Basic.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import quote

from cloister.credentials.inject import visible
from cloister.messages import RequestHead
from cloister.secret import Secret

Pairs = Sequence[tuple[bytes, Secret]]

_BASIC = b"basic "


class Replacer:
    """Replaces in a body, over the borders of parts."""

    def __init__(self, pairs: Pairs, *, content_type: bytes) -> None:
        encode = _encoding(content_type)
        self._pairs = [(placeholder, encode(value.reveal())) for placeholder, value in pairs]
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may leave now."""
        data = self._held + data
        for placeholder, value in self._pairs:
            data = data.replace(placeholder, value)
        keep = max((_begun(data, placeholder) for placeholder, _ in self._pairs), default=0)
        cut = len(data) - keep
        self._held = data[cut:]
        return data[:cut]

    def end(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return held


def replace_in_head(request: RequestHead, pairs: Pairs) -> RequestHead:
    """The request with values for placeholders in path, query and headers. UnfitSecretError."""
    path, query = request.path, request.query
    headers = list(request.headers)
    for placeholder, value in pairs:
        text = placeholder.decode("ascii")
        escaped = quote(value.reveal(), safe="")
        path = path.replace(text, escaped)
        query = query.replace(text, escaped) if query is not None else None
        headers = [(name, _in_header(name, old, placeholder, value)) for name, old in headers]
    return replace(request, path=path, query=query, headers=tuple(headers))


def _in_header(name: bytes, old: bytes, placeholder: bytes, value: Secret) -> bytes:
    if placeholder in old:
        return old.replace(placeholder, visible(value))
    if name in (b"authorization", b"proxy-authorization") and old[:6].lower() == _BASIC:
        try:
            pair = base64.b64decode(old[6:].strip(), validate=True)
        except binascii.Error:
            return old
        if placeholder in pair:
            return b"Basic " + base64.b64encode(pair.replace(placeholder, visible(value)))
    return old


def _begun(data: bytes, placeholder: bytes) -> int:
    """How many of the last bytes may be the beginning of a placeholder."""
    for length in range(min(len(placeholder) - 1, len(data)), 0, -1):
        if data.endswith(placeholder[:length]):
            return length
    return 0


def _encoding(content_type: bytes) -> Callable[[bytes], bytes]:
    kind = content_type.split(b";", 1)[0].strip().lower()
    if kind == b"application/x-www-form-urlencoded":
        return lambda value: quote(value, safe="").encode()
    if kind == b"application/json" or kind.endswith(b"+json"):
        return lambda value: json.dumps(value.decode("utf-8", "surrogateescape"))[1:-1].encode()
    return lambda value: value
