"""Heads and trailers of HTTP/2 as values (RFC 9113 section 8), as strict as `strict.py` is with HTTP/1.1.

`h2` has checked already: the order, number and kind of pseudo-headers, that names are lower case, and that no header
belongs to a connection. Here is the rest: one reading for us and for whoever gets the message in another version.

Rule 1: no I/O. Raises UntrustedInputError only.
"""

from __future__ import annotations

import re

from cloister.errors import UntrustedInputError
from cloister.gateway.http.body import HOP_BY_HOP, NOT_IN_TRAILERS
from cloister.messages import Headers, RequestHead

HEADERS_LIMIT = 128
_METHOD_LIMIT = 32
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[A-Za-z0-9-]+")
_PRINTABLE = re.compile(rb"[\x21-\x7e]*")

_Untrusted = list[tuple[bytes, bytes]]


def checked(untrusted: _Untrusted) -> Headers:
    """Headers, pseudo-headers among them, whose bytes are all that the protocol allows."""
    if len(untrusted) > HEADERS_LIMIT:
        raise UntrustedInputError("too many HTTP headers")
    for name, value in untrusted:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise UntrustedInputError("a bad HTTP header name, or a control character in a value")
    return tuple((bytes(name), bytes(value)) for name, value in untrusted)


def request_head(untrusted: _Untrusted, *, ended: bool) -> RequestHead:
    """A request. `ended`: it has no body."""
    headers = checked(untrusted)
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    authority = _authority(pseudo, [value for name, value in headers if name == b"host"])
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if b":protocol" in pseudo or not _METHOD.fullmatch(method) or len(method) > _METHOD_LIMIT:
        raise UntrustedInputError("bad HTTP method")
    if method == b"CONNECT":
        raise UntrustedInputError("CONNECT within a connection that is for one host")
    if pseudo.get(b":scheme") != b"https":
        raise UntrustedInputError("another scheme than https")
    if not target.startswith(b"/") and (target, method) != (b"*", b"OPTIONS"):
        raise UntrustedInputError("the path does not begin with /")
    if not _PRINTABLE.fullmatch(target + authority) or b"#" in target:
        raise UntrustedInputError("a byte outside of printable ASCII, or a fragment, in the path")
    path, mark, query = target.decode().partition("?")
    declared = length(headers)
    if ended and declared:
        raise UntrustedInputError("the body is shorter than declared")
    return RequestHead(
        method=method.decode(),
        untrusted_authority=authority.decode(),
        path=path,
        query=query if mark else None,
        headers=_of_request(headers),
        length=0 if ended else declared,
        expects_continue=any(pair == (b"expect", b"100-continue") for pair in headers) and not ended,
        declared_length=declared is not None,
    )


def of_response(headers: Headers) -> Headers:
    """The headers of a response that go on."""
    return tuple(pair for pair in headers if pair[0] not in HOP_BY_HOP and pair[0][:1] != b":")


def trailers(untrusted: _Untrusted) -> Headers:
    """Trailers without what must not stand there; bad ones are none."""
    try:
        return tuple(
            pair for pair in checked(untrusted) if pair[0] not in NOT_IN_TRAILERS and pair[0][:1] != b":"
        )
    except UntrustedInputError:
        return ()


def length(headers: Headers) -> int | None:
    """The Content-Length; None if there is none."""
    values = {value for name, value in headers if name == b"content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not re.fullmatch(rb"[0-9]{1,18}", value):
        raise UntrustedInputError("bad Content-Length")
    return int(value)


def status(headers: Headers) -> int:
    """The status of a response."""
    for name, value in headers:
        if name == b":status" and len(value) == 3 and value.isdigit() and value[:1] != b"0":
            return int(value)
    raise UntrustedInputError("no status")


def _authority(pseudo: dict[bytes, bytes], hosts: list[bytes]) -> bytes:
    """One name for the request, or none that counts (RFC 9113 section 8.3.1)."""
    authority = pseudo.get(b":authority", hosts[0] if hosts else b"")
    if any(host != authority for host in hosts):
        raise UntrustedInputError("the Host header and :authority differ")
    if len(hosts) > 1 or not authority:
        raise UntrustedInputError("not exactly one :authority or Host")
    return authority


def _of_request(headers: Headers) -> Headers:
    """Without pseudo-headers and framing; cookies as one (RFC 9113 section 8.2.3)."""
    kept = [
        pair for pair in headers if pair[0][:1] != b":" and pair[0] not in HOP_BY_HOP and pair[0] != b"cookie"
    ]
    if (b"te", b"trailers") in headers:
        kept.append((b"te", b"trailers"))
    cookies = [value for name, value in headers if name == b"cookie"]
    if cookies:
        kept.append((b"cookie", b"; ".join(cookies)))
    return tuple(kept)
