"""HTTP messages without their framing: what HTTP/1.1 and HTTP/2 have in common (RFC 9110).

Rule 1: header names are in lower case, values without surrounding white space; neither holds CR, LF or NUL.
Rule 2: headers hold nothing of one connection: no Host, Connection, Keep-Alive, Proxy-*, TE (but `trailers`),
        Transfer-Encoding, Upgrade, Expect or Content-Length, none that `Connection` named, no pseudo-header. What they
        said is in fields of its own.
Rule 3: values only, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[bytes, bytes], ...]


def as_cgi(name: bytes) -> bytes:
    """A header's name as a server may read it that makes one of "-" and "_" (RFC 3875, 4.1.18)."""
    return name.replace(b"_", b"-")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request. `untrusted_authority` is `host[:port]` as sent; `path` (from its "/") and `query` are raw.

    `length` is that of the body in bytes: 0 for none, None for one whose end will show.
    """

    method: str
    untrusted_authority: str
    path: str
    query: str | None = None
    headers: Headers = ()
    length: int | None = 0
    expects_continue: bool = False
    websocket_key: bytes | None = None  # asks to switch to WebSocket (RFC 6455)
    declared_length: bool = False  # Content-Length was sent, though it may be 0

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key == name]

    def values_as_cgi(self, name: bytes) -> list[bytes]:
        """All values of what a server may take for this header: CGI, WSGI and others make one of "-" and "_"."""
        return [value for key, value in self.headers if as_cgi(key) == name]

    @property
    def target(self) -> str:
        """Path and query."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """A final response's head. `length`: as in `RequestHead`; 0 where the request or status forbids a body.

    `declared_length` is the Content-Length that was sent: also with an answer to HEAD or a 304, which have no body.
    """

    status: int
    headers: Headers = ()
    length: int | None = 0
    declared_length: int | None = None
    phrase: str = ""  # of our own answers only (HTTP/1.1 shows it); an upstream's is not forwarded

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key == name]
