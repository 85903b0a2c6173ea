"""Judge the raw head of an HTTP/1.x message before a tolerant parser sees it (RFC 9112).

h11 forgives a bare LF, a folded line, a repeated Content-Length and more; two parsers that forgive
differently are how requests are smuggled. Whatever passes here has one reading only.

Rule 1: bytes in, value out; raises only UntrustedInputError, whose message never quotes the input.
Rule 2: framing is decided here: a length, or exactly `chunked`, never both, never twice.
Rule 3: a request names its host exactly once (an absolute target must agree with its Host).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from cloister.errors import UntrustedInputError

LINE_LIMIT_BYTES = 8 * 1024
HEAD_LIMIT_BYTES = 64 * 1024
HEADERS_LIMIT = 128

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\[\]:@/?#\\]+)(?::([1-9][0-9]{0,4}))?")
_METHOD_LIMIT_BYTES = 32


class Form(Enum):
    """The forms of a request target, RFC 9112 section 3.2."""

    ORIGIN = "origin"
    ABSOLUTE = "absolute"
    AUTHORITY = "authority"
    ASTERISK = "asterisk"


Headers = tuple[tuple[bytes, bytes], ...]  # names in lower case


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request head. `untrusted_authority` is `host[:port]` as sent; path and query are raw."""

    method: str
    form: Form
    untrusted_authority: str
    path: str
    query: str | None
    minor_version: int
    headers: Headers
    length: int | None  # None: chunked
    declared_length: bool = False  # by Content-Length, though it may be 0

    @property
    def connection(self) -> set[bytes]:
        """What `Connection` (and its old proxy form) names."""
        return self.tokens(b"connection") | self.tokens(b"proxy-connection")

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection to end."""
        return b"close" in self.connection

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key == name]

    def tokens(self, name: bytes) -> set[bytes]:
        """The comma-separated elements of a header, in lower case."""
        return _tokens(self.headers, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """A response head. Whether it has a body also depends on the request."""

    status: int
    reason: bytes
    headers: Headers
    length: int | None = -1  # Content-Length; -1: none; None: chunked
    minor_version: int = 1

    @property
    def connection(self) -> set[bytes]:
        """What `Connection` names."""
        return self.tokens(b"connection")

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def tokens(self, name: bytes) -> set[bytes]:
        return _tokens(self.headers, name)


def request_head(untrusted: bytes) -> RequestHead:
    """Judge a request's head, the empty line at its end included."""
    first, headers = _lines(untrusted)
    parts = first.split(b" ")
    if len(parts) != 3:
        raise UntrustedInputError("the request line is not `method target version`")
    method, target, version = parts
    if version == b"HTTP/2.0" and method == b"PRI":
        raise UntrustedInputError("HTTP/2 without TLS is not supported")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise UntrustedInputError("bad HTTP version")
    if not _TOKEN.fullmatch(method) or len(method) > _METHOD_LIMIT_BYTES:
        raise UntrustedInputError("bad HTTP method")
    if not _TARGET.fullmatch(target):
        raise UntrustedInputError("the request target is empty or holds a byte outside printable ASCII")
    minor = int(version[-1:])
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts and method == b"CONNECT" and minor == 0:
        hosts = [target]  # Python's http.client: HTTP/1.0 needs no Host, and the target says it all
    if len(hosts) != 1:
        raise UntrustedInputError("no Host header" if not hosts else "more than one Host header")
    if b"http2-settings" in dict(headers) or b"h2c" in _tokens(headers, b"upgrade"):
        raise UntrustedInputError("upgrading to HTTP/2 without TLS is not supported")
    form, authority, path, query = _target(method.decode(), target.decode(), hosts[0])
    length = _length(headers, minor)
    expect = _tokens(headers, b"expect")
    if expect - {b"100-continue"}:
        raise UntrustedInputError("unknown expectation")
    return RequestHead(
        method=method.decode(),
        form=form,
        untrusted_authority=authority,
        path=path,
        query=query,
        minor_version=minor,
        headers=headers,
        length=0 if length == -1 else length,
        declared_length=length is not None and length >= 0,
    )


def response_head(untrusted: bytes) -> ResponseHead:
    """Judge a response's head."""
    first, headers = _lines(untrusted)
    match = _STATUS.fullmatch(first)
    if match is None:
        raise UntrustedInputError("bad status line")
    minor = int(match[1])
    return ResponseHead(
        status=int(match[2]),
        reason=match[3] or b"",
        headers=headers,
        length=_length(headers, minor),
        minor_version=minor,
    )


def authority(untrusted: str, *, default_port: int | None) -> tuple[str, int]:
    """`host[:port]` as (host, port). The host is text that `policy.names.parse_host` has yet to accept."""
    match = _AUTHORITY.fullmatch(untrusted)
    if match is None:
        raise UntrustedInputError("bad authority: expected `host:port`")
    port = int(match[2]) if match[2] else default_port
    if port is None:
        raise UntrustedInputError("the authority names no port")
    if port > 65535:
        raise UntrustedInputError("port out of range")
    return match[1], port


def header_lines(untrusted_lines: list[bytes]) -> Headers:
    """Judge header lines that stand outside of a head (trailers)."""
    if len(untrusted_lines) > HEADERS_LIMIT:
        raise UntrustedInputError("too many HTTP headers")
    for line in untrusted_lines:
        if len(line) > LINE_LIMIT_BYTES or not _VALUE.fullmatch(line):
            raise UntrustedInputError("control character in an HTTP header, or a line that is too long")
    return tuple(_header(line) for line in untrusted_lines)


def _lines(untrusted: bytes) -> tuple[bytes, Headers]:
    if len(untrusted) > HEAD_LIMIT_BYTES:
        raise UntrustedInputError("the HTTP head is too long")
    if not untrusted.endswith(b"\r\n\r\n"):
        if untrusted.startswith((b"\r\n", b"\n")):
            raise UntrustedInputError("empty line before the HTTP head")
        raise UntrustedInputError("the HTTP head does not end in an empty line (or has a bare LF)")
    first, *rest = untrusted[:-4].split(b"\r\n")
    if len(rest) > HEADERS_LIMIT:
        raise UntrustedInputError("too many HTTP headers")
    for line in (first, *rest):
        if len(line) > LINE_LIMIT_BYTES:
            raise UntrustedInputError("a line of the HTTP head is too long")
        if not line:
            raise UntrustedInputError("empty line before the HTTP head")
        if not _VALUE.fullmatch(line):
            raise UntrustedInputError("control character (a bare CR or LF, a NUL …) in the HTTP head")
    return first, tuple(_header(line) for line in rest)


def _header(line: bytes) -> tuple[bytes, bytes]:
    if line[:1] in (b" ", b"\t"):
        raise UntrustedInputError("folded HTTP header")
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise UntrustedInputError("bad HTTP header name (or a space before its colon)")
    return name.lower(), value.strip(b" \t")


def _target(method: str, target: str, host: bytes) -> tuple[Form, str, str, str | None]:
    """The form, the authority, the path and the query of a request target."""
    try:
        named = host.decode("ascii")
    except UnicodeDecodeError:
        raise UntrustedInputError("the Host header is not ASCII") from None
    if "#" in target:
        raise UntrustedInputError("fragment in the request target")
    if method == "CONNECT":
        # Some clients send `Host: name` without the port with CONNECT; the target is what counts.
        authority(target, default_port=None)
        if (
            authority(named, default_port=None if ":" in named else 1)[0].lower()
            != authority(target, default_port=1)[0].lower()
        ):
            raise UntrustedInputError("the CONNECT target and the Host header differ")
        return Form.AUTHORITY, target, "", None
    if target == "*":
        if method != "OPTIONS":
            raise UntrustedInputError("the target `*` is only for OPTIONS")
        return Form.ASTERISK, named, "*", None
    if target.startswith("/"):
        path, mark, query = target.partition("?")
        return Form.ORIGIN, named, path, query if mark else None
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() != "http":
        raise UntrustedInputError("the request target is neither a path nor an http:// URL")
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    written, path_and_query = rest[:cut], rest[cut:]
    if authority(written, default_port=80) != authority(named, default_port=80) and (
        written.lower() != named.lower()
    ):
        raise UntrustedInputError("the absolute target and the Host header differ")
    path, mark, query = path_and_query.partition("?")
    return Form.ABSOLUTE, written, path or "/", query if mark else None


def _length(headers: Headers, minor_version: int) -> int | None:
    """The Content-Length, -1 if there is none, None for a chunked body."""
    lengths = [value for name, value in headers if name == b"content-length"]
    encodings = [value for name, value in headers if name == b"transfer-encoding"]
    if encodings:
        if lengths:
            raise UntrustedInputError("both Content-Length and Transfer-Encoding")
        if len(encodings) > 1 or encodings[0].lower() != b"chunked":
            raise UntrustedInputError("a Transfer-Encoding other than exactly `chunked`")
        if minor_version == 0:
            raise UntrustedInputError("Transfer-Encoding in HTTP/1.0")
        return None
    if len(lengths) > 1:
        raise UntrustedInputError("more than one Content-Length")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise UntrustedInputError("bad Content-Length")
    return int(lengths[0]) if lengths else -1


def _tokens(headers: Headers, name: bytes) -> set[bytes]:
    values = b",".join(value for key, value in headers if key == name)
    return {token.strip(b" \t").lower() for token in values.split(b",")} - {b""}
