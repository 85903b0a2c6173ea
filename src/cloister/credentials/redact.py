"""Take credentials' values out of what comes back, byte for byte.

Rule 1: every spelling of which there are few: as it is, percent-encoded, JSON's (both also twice) and HTML's escapes,
        each of these also of every byte, source code's escapes of every byte, base64 (any alignment, both alphabets,
        so within `Basic` too, and broken into lines), base32, hexadecimal, UTF-16. What is found becomes as many "*":
        lengths stay true (ADR 0053).
Rule 2: nothing is held back but a tail that may begin a value, so that streams are not delayed; and that only where
        a value goes to. Elsewhere a server that works with the sandbox would see by the delay which guess begins one.
Rule 3: the same is masked however a stream is cut, and all of values that overlap, or of which one begins another.
Rule 4: not seen: a value inside of an archive, encrypted, cut into pieces, or
        spelled in a mixture, such as every second byte escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote

from cloister.credentials.needles import Needles
from cloister.credentials.placeholder import stable_base32, stable_base64
from cloister.messages import ResponseHead
from cloister.secret import Secret

LEAST_BYTES = 6  # a shorter value would be found by chance, all over the place
# Escapes of harmless bytes, too.
_EVERY_BYTE = (
    "%%%02X", "%%%02x", "&#x%02x;", "&#x%02X;", "&#X%02X;", "&#%d;", "&#%03d;", "\\x%02x", "\\x%02X", "\\%03o",
    "\\u%04X",
)  # fmt: skip
# html.escape, whose module holds 0.5 MB of entities for as long as the gateway lives.
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})


class Redactor:
    """Redacts one stream. `current` gives what is secret by now: a stream may be older than a value.

    `holds`: a value may come in two parts (Rule 2).
    """

    def __init__(
        self,
        secrets: Sequence[Secret],
        *,
        current: Callable[[], Sequence[Secret]] | None = None,
        holds: bool = True,
    ) -> None:
        self._current = current
        self._holds = holds
        self._held = b""  # not masked yet: it may be the beginning of a value
        self._known = 0  # how many of its first bytes are the end of one
        self._learn(secrets)

    def _learn(self, secrets: Sequence[Secret]) -> None:
        self._secrets = secrets
        self._needles = spellings(secrets).needles

    def feed(self, data: bytes) -> bytes:
        """What may be delivered now, masked."""
        if self._current is not None and (secrets := self._current()) is not self._secrets:
            self._learn(secrets)
        if self._held:
            data = self._held + data
        return self._deliver(data, len(data) - (self._needles.begun(data) if self._holds else 0))

    def end(self) -> bytes:
        """What was held back."""
        return self._deliver(self._held, len(self._held))

    def _deliver(self, data: bytes, count: int) -> bytes:
        """The first bytes, masked; the others are held, and with them how much of them is known to be a value's end."""
        spans = self._needles.spans(data)
        ended = [self._known, *(end for begin, end in spans if begin < count)]
        made = _masked(data, [(0, self._known), *spans])[:count] if spans or self._known else data[:count]
        self._held = data[count:]
        self._known = max(0, max(ended) - count)
        return made


def redact_head(head: ResponseHead, secrets: Sequence[Secret]) -> ResponseHead:
    """The head with every value masked, in names of headers too."""
    found = spellings(secrets)
    if not found.needles.any_in(b"\n".join(value for _, value in head.headers)) and not found.lower.any_in(
        b"\n".join(name for name, _ in head.headers)
    ):
        return head
    pairs = tuple(
        (_masked(name, found.lower.spans(name)), _masked(value, found.needles.spans(value)))
        for name, value in head.headers
    )
    return replace(head, headers=pairs)


def redact_text(text: str, secrets: Sequence[Secret]) -> str:
    """A text for people or for a WebSocket, masked."""
    data = text.encode()
    return _masked(data, spellings(secrets).needles.spans(data)).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Spellings:
    """All spellings of all values; `lower` as they are in names of headers."""

    needles: Needles
    lower: Needles


_latest: tuple[Sequence[Secret], Spellings] = ((), Spellings(Needles(()), Needles(())))


def spellings(secrets: Sequence[Secret]) -> Spellings:
    """Of these values. Those of the tuple that was asked for last are kept: a vault gives one until it learns more."""
    global _latest  # noqa: PLW0603  # a cache: secrets have no hash to keep more by
    known, found = _latest
    if known is secrets:
        return found
    values = [secret.reveal() for secret in secrets if len(secret.reveal()) >= LEAST_BYTES]
    written = [spelling for value in values for spelling in _spellings(value)]
    encoded = [spelling for value in values for spelling in stable_base64(value)]
    lower = Needles(spelling.lower() for spelling in (*written, *encoded))
    found = Spellings(Needles(written, base64=encoded), lower)
    if isinstance(secrets, tuple):
        _latest = (secrets, found)
    return found


@lru_cache(maxsize=256)
def _spellings(value: bytes) -> tuple[bytes, ...]:
    percent = quote(value, safe="").encode()
    text = value.decode("utf-8", "surrogateescape")
    escaped = json.dumps(text)[1:-1].encode("ascii", "ignore")
    found = [
        value,
        percent,
        re.sub(rb"%[0-9A-F]{2}", lambda match: match[0].lower(), percent),
        percent.replace(b"%", b"%25"),  # a URL in a URL's query, as in a redirect to a log-in
        json.dumps(escaped.decode())[1:-1].encode(),  # JSON in a text of JSON
        quote(value).encode(),
        quote(value, safe="-._~!$&'()*+,;=:@/").encode(),
        escaped,
        escaped.replace(b"/", b"\\/"),
        re.sub(rb"[+&<>'`]", lambda match: b"\\u%04X" % match[0][0], escaped),  # .NET
        re.sub(rb"[=&<>']", lambda match: b"\\u%04x" % match[0][0], escaped),  # Gson
        re.sub(rb"[&<>]", lambda match: b"\\u%04x" % match[0][0], escaped),  # Go
        text.translate(_HTML).encode("ascii", "ignore"),
        text.translate(_HTML).replace("/", "&#x2F;").replace("=", "&#x3D;").encode("ascii", "ignore"),
        b"\0".join(value[at : at + 1] for at in range(len(value))),  # UTF-16, in either order
        "".join(f"\\u{ord(char):04x}" for char in text).encode("ascii", "ignore"),
        value.hex().encode(),
        value.hex().upper().encode(),
        *("".join(form % byte for byte in value).encode() for form in _EVERY_BYTE),
        *stable_base32(value),
    ]
    return tuple(dict.fromkeys(spelling for spelling in found if len(spelling) >= LEAST_BYTES))


def _masked(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    if not spans:
        return data
    made = bytearray(data)
    for begin, end in spans:
        made[begin:end] = b"*" * (end - begin)
    return bytes(made)
