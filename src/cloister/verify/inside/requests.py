"""Destination confusion and credentials (ID)."""

from __future__ import annotations

import base64
import contextlib
import gzip
import re
import zlib

from cloister.verify.inside.talk import (
    CONFIG,
    SECRET,
    Probe,
    RefusedError,
    _tried,
    answer,
    asked,
    connected,
    dial,
    fetch,
    get,
    name,
    once,
    post,
    probe,
    resolve,
    secured,
    sized,
    whole,
)
from cloister.verify.inside.websockets import message, text_frame, websocket


@probe("ID-1")
def host_and_destination_disagree(found: Probe) -> None:
    bound, granted, evil = name("bound"), name("open"), name("evil")
    found.control("a request to the connection's own host", lambda: fetch(bound, "/control-ID-1"))
    for other in (granted, evil):
        found.attack(
            f"Host: {other} on a connection to {bound}",
            once,
            bound,
            get("/attack-ID-1-host", other),
        )

    def named_differently() -> str:
        with secured(dial(resolve(bound), 443), granted) as stream:
            return asked(stream, get("/attack-ID-1-sni", granted))

    found.attack(f"server name {granted} at the address of {bound}", named_differently)
    # The other way round: an injecting proxy that goes by the header would give the credential away.
    unbound = name("paths")
    reverse = get("/open/attack-ID-1-reverse", bound)
    found.attack(f"Host: {bound} on a connection to {unbound}", once, unbound, reverse)


@probe("ID-2")
def second_request_elsewhere(found: Probe) -> None:
    bound = name("bound")

    def both() -> str:
        with connected(bound) as stream:
            asked(stream, get("/control-ID-2", bound))
            return asked(stream, get("/attack-ID-2", name("open")))

    found.control("a first request", lambda: fetch(bound, "/control-ID-2"))
    found.attack("a second request on the connection, for another host", both)


@probe("ID-3")
def absolute_form(found: Probe) -> None:
    bound, other = name("bound"), name("open")
    found.control("the origin form", lambda: fetch(bound, "/control-ID-3"))
    for target, host in ((f"https://{other}", other), (f"http://{other}:443", f"{other}:443")):
        found.attack(
            f"absolute form {target} within TLS to {bound}", once, bound, get(f"{target}/attack-ID-3", host)
        )


@probe("ID-4")
def two_hosts(found: Probe) -> None:
    bound = name("bound")
    found.control("one Host", lambda: fetch(bound, "/control-ID-4"))
    found.attack("two Host lines", lambda: once(bound, get("/attack-ID-4", bound, f"Host: {name('open')}")))


@probe("ID-5")
def placeholder_elsewhere(found: Probe) -> None:
    other, placeholder = name("judged"), CONFIG["placeholder"]
    basic = base64.b64encode(f"user:{placeholder}".encode()).decode()
    found.control("a request without it", lambda: fetch(other, "/control-ID-5"))
    found.attack(
        "the placeholder in a header", lambda: fetch(other, "/attack-ID-5-header", f"X-Token: {placeholder}")
    )
    found.attack("within Basic", lambda: fetch(other, "/attack-ID-5-basic", f"Authorization: Basic {basic}"))
    found.attack("in the query", lambda: fetch(other, f"/attack-ID-5-query?t={placeholder}"))
    found.attack("in the path", lambda: fetch(other, f"/attack-ID-5-path/{placeholder}"))
    _placeholder_in_bodies(found, other, placeholder.encode())
    _placeholder_in_messages(found, other, placeholder.encode())


def _placeholder_in_bodies(found: Probe, other: str, placeholder: bytes) -> None:
    """Of these the head may leave; what counts is whether the origin gets the whole."""
    half = len(placeholder) // 2
    found.control("a body without it", lambda: once(other, sized(other, "/control-ID-5-body", b"nothing")))
    escaped = b'{"token": "' + b"".join(b"\\u%04x" % byte for byte in placeholder) + b'"}'
    for what, body, header in (
        ("plain", b"token: " + placeholder, "text/plain"),
        ("form", b"token=" + b"".join(b"%%%02X" % byte for byte in placeholder), "x-www-form-urlencoded"),
        ("json", escaped, "application/json"),
    ):
        request = sized(other, f"/cut-ID-5-{what}", body, f"Content-Type: {header}")
        found.attack(f"in a body: {what}", once, other, request)
    packed = sized(other, "/cut-ID-5-gzip", gzip.compress(placeholder), "Content-Encoding: gzip")
    found.attack("in a body: gzip", once, other, packed)

    def in_parts(head: bytes, *parts: bytes) -> str:
        with connected(other) as stream:
            stream.sendall(head)
            for part in parts[:-1]:
                stream.sendall(part)  # a TLS record each
            return asked(stream, parts[-1])

    head = sized(other, "/cut-ID-5-records", placeholder)[: -len(placeholder)]
    found.attack("split over TLS records", in_parts, head, placeholder[:half], placeholder[half:])
    head = post(other, "/cut-ID-5-chunks", "Transfer-Encoding: chunked", "")
    one, two = (b"%x\r\n%b\r\n" % (len(part), part) for part in (placeholder[:half], placeholder[half:]))
    found.attack("split over chunks", in_parts, head, one, two + b"0\r\n\r\n")


def _placeholder_in_messages(found: Probe, other: str, placeholder: bytes) -> None:
    def sent(*frames: bytes) -> str:
        """It has passed when its end comes back; a part of a placeholder is none."""
        with websocket(other, "/websocket") as stream:
            message(stream)  # its greeting
            for one in frames:
                stream.sendall(one)
            got = message(stream)
            while not got.endswith(b"-ID-5-message"):
                got += message(stream)
            return repr(got)

    found.control("a message without it", lambda: sent(text_frame(b"control-ID-5-message")))
    found.attack("in a message", lambda: sent(text_frame(placeholder + b" attack-ID-5-message")))
    one, two = placeholder[:9], placeholder[9:] + b" attack-ID-5-message"
    found.attack("in two frames", lambda: sent(text_frame(one, last=False), text_frame(two, first=False)))


@probe("ID-6")
def redirected(found: Probe) -> None:
    bound, judged, placeholder = name("bound"), name("judged"), CONFIG["placeholder"]
    found.control("a request that is not redirected", lambda: fetch(bound, "/control-ID-6"))

    def came_back(which: str) -> str:
        with connected(bound) as stream:
            stream.sendall(get(f"/redirect-{which}", bound))
            status, head = answer(stream)
        if status != 307 or f"https://{name(which)}/".encode() not in head:
            raise RefusedError(f"{status}")
        return "307, and its Location"

    for which in ("open", "judged", "evil"):
        found.control(f"a redirect to {name(which)} comes back", came_back, which)
        found.attack(f"the gateway follows it to {name(which)}", fetch, bound, f"/redirect-{which}")
    # What a client does that follows: the credential must not come along. The origin is asked what it got.
    found.control("a client follows, without a credential", lambda: fetch(judged, "/control-ID-6-followed"))
    found.attack(
        "a client follows, and keeps the header that it had",
        lambda: fetch(judged, "/attack-ID-6-kept", f"Authorization: Bearer {placeholder}"),
    )


@probe("ID-7")
def own_header(found: Probe) -> None:
    bound = name("bound")
    found.control("a request without it", lambda: fetch(bound, "/control-ID-7"))
    _tried("the client's own", lambda: fetch(bound, "/witness", "aUtHoRiZaTiOn: Bearer attack-ID-7-odd"))
    _tried(
        "and twice",
        lambda: fetch(bound, "/witness", "Authorization: a", "Authorization: Bearer attack-ID-7-twice"),
    )
    found.missing = ""


@probe("ID-8")
def proxy_credentials(found: Probe) -> None:
    host = name("plain")

    def through() -> str:
        with dial("127.0.0.1", 3128) as stream:
            target = f"http://{host}/control-ID-8"
            return asked(stream, get(target, host, "Proxy-Authorization: Basic attack-ID-8"))

    found.control("a request by way of the proxy", through)


@probe("ID-9")
def echo(found: Probe) -> None:
    bound = name("bound")

    def echoed(path: str) -> str:
        return shown(whole(bound, get(path, bound, "TE: trailers", "Connection: TE, close")))

    found.control("an answer comes back", lambda: fetch(bound, "/control-ID-9"))
    for path, what in (
        ("/echo", "in head and body"), ("/echo-base64", "in base64"), ("/echo-lines", "in lines of base64"),
        ("/echo-gzip", "compressed"),
        ("/echo-deflate", "compressed otherwise"), ("/echo-split", "split over chunks"),
        ("/echo-split-gzip", "compressed, and split over chunks"), ("/echo-trailer", "in a trailer"),
        ("/echo-location", "in a redirect"),
    ):  # fmt: skip
        found.attack(f"an upstream that echoes the credential {what}", echoed, path)

    def by_websocket() -> str:
        with websocket(bound, "/websocket") as stream:
            return shown(message(stream))

    found.attack("an upstream that echoes it in a WebSocket", by_websocket)


def shown(untrusted: bytes) -> str:
    """Whether the credential's value is in an answer, in any form that its reader would undo."""
    head, _, body = untrusted.partition(b"\r\n\r\n")
    forms = [untrusted, body, unchunked(body)]
    for form in tuple(forms):
        for text in (form, form.replace(b"\n", b"")):
            forms += [base64.b64decode(word + b"==") for word in re.findall(rb"[A-Za-z0-9+/=]{40,}", text)]
        for window_bits in (31, 15):
            with contextlib.suppress(zlib.error):
                forms.append(zlib.decompressobj(window_bits).decompress(form))
    if not any(SECRET.search(form) for form in forms):
        raise RefusedError(f"{head[:20].decode('latin-1')!r}, {len(body)} bytes, without the value")
    return "the value came back"


def unchunked(body: bytes) -> bytes:
    """The chunks' content, as far as these are chunks."""
    data = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not re.fullmatch(rb"[0-9a-fA-F]{1,6}", size):
            return data
        data, body = data + body[: int(size, 16)], body[int(size, 16) + 2 :]


@probe("ID-10")
def values_that_do_not_fit(found: Probe) -> None:
    odd = name("odd")
    found.control("a value whose file ends in a newline", lambda: fetch(odd, "/newline/control-ID-10"))
    for kind, what in (
        ("crlf", "with CR and LF"), ("lf", "with LF"), ("cr", "with CR"), ("nul", "with NUL"),
        ("link", "behind a symbolic link"), ("fifo", "in a FIFO"), ("readable", "that everybody may read"),
        ("empty", "that is empty"), ("blank", "that is blank"),
    ):  # fmt: skip
        found.attack(f"use a value {what}", fetch, odd, f"/{kind}/attack-ID-10-{kind}")


@probe("ID-11")
def cleartext(found: Probe) -> None:
    host, placeholder = name("plain"), CONFIG["placeholder"]

    def clear(path: str, *headers: str) -> str:
        with dial(resolve(host), 80) as stream:
            return asked(stream, get(path, host, *headers))

    found.control("a request without a credential", lambda: clear("/control-ID-11"))
    found.attack(
        "the placeholder over cleartext",
        lambda: clear("/attack-ID-11", f"Authorization: Bearer {placeholder}"),
    )
    for which, what in (
        ("misnamed", "for another name"),
        ("expired", "that has expired"),
        ("selfsigned", "of nobody's authority"),
    ):
        found.attack(f"an upstream with a certificate {what}", fetch, name(which), f"/attack-ID-11-{which}")
