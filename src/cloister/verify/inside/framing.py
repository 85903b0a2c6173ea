"""How HTTP/1.1 is read: heads, bodies, paths, methods (HTTP-1 to HTTP-4, HTTP-7)."""

from __future__ import annotations

import contextlib
import hashlib
import socket

from cloister.verify.inside.talk import (
    Probe,
    RefusedError,
    _tried,
    answer,
    asked,
    connected,
    fetch,
    get,
    name,
    once,
    post,
    probe,
    rest,
    sized,
    whole,
)


@probe("HTTP-1")
def lengths_disagree(found: Probe) -> None:
    bound = name("bound")
    smuggled = f"GET /attack-HTTP-1 HTTP/1.1\r\nHost: {bound}\r\n\r\n"
    found.control(
        "a body with one length",
        lambda: once(bound, post(bound, "/control-HTTP-1", "Content-Length: 2", "ok")),
    )
    for one, two, body in (
        ("Content-Length: 4", "Transfer-Encoding: chunked", "0\r\n\r\n" + smuggled),
        ("Content-Length: 0", f"Content-Length: {len(smuggled)}", smuggled),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "0\r\n\r\n" + smuggled),
    ):
        found.attack(
            f"{one} with {two}",
            once,
            bound,
            post(bound, "/attack-HTTP-1-outer", f"{one}\r\n{two}", body),
        )


@probe("HTTP-2")
def odd_heads(found: Probe) -> None:
    bound = name("bound")
    found.control("a plain head", lambda: fetch(bound, "/control-HTTP-2"))
    for what, line in (
        ("a space before the colon", "X-Odd : attack"),
        ("a folded line", "X-Odd: a\r\n b"),
        ("a bare line feed", "X-Odd: a\nX-Other: b"),
        ("a NUL", "X-Odd: a\0b"),
    ):
        found.attack(what, once, bound, get("/attack-HTTP-2", bound, line))


@probe("HTTP-3")
def bodies_that_lie(found: Probe) -> None:
    host = name("judged")
    digest = hashlib.sha256(b"control-HTTP-3").hexdigest()

    def hashed() -> str:
        request = chunked(host, "/hash", b"e;of=the-body\r\ncontrol-HTTP-3\r\n0\r\n\r\n")
        if f"14 {digest}".encode() not in whole(host, request):
            raise RefusedError("another body arrived")
        return "the body arrived"

    found.control("a body in chunks", hashed)
    for what, body in (
        ("a sign", b"+2\r\nok\r\n0\r\n\r\n"), ("0x", b"0x2\r\nok\r\n0\r\n\r\n"),
        ("a space before it", b" 2\r\nok\r\n0\r\n\r\n"), ("two numbers", b"2 2\r\nok\r\n0\r\n\r\n"),
        ("nothing", b"\r\nok\r\n0\r\n\r\n"), ("no number", b"zz\r\nok\r\n0\r\n\r\n"),
        ("64 bits and more", b"10000000000000002\r\nok\r\n0\r\n\r\n"),
        ("a bare line feed", b"2\nok\r\n0\r\n\r\n"), ("less than its chunk", b"2\r\nokok\r\n0\r\n\r\n"),
        ("more than its chunk", b"9\r\nok\r\n0\r\n\r\n"),
        ("an extension with a line feed", b"2;a=\nb\r\nok\r\n0\r\n\r\n"),
    ):  # fmt: skip
        found.attack(f"a chunk's size: {what}", ended_early, host, chunked(host, "/cut-HTTP-3-size", body))
    for what, request in (
        ("its length", sized(host, "/cut-HTTP-3-short", b"short").replace(b"Length: 5", b"Length: 50")),
        ("its last chunk", chunked(host, "/cut-HTTP-3-chunks", b"5\r\nshort\r\n")),
        ("the end of a chunk", chunked(host, "/cut-HTTP-3-chunk", b"5\r\nsho")),
        ("the end of its trailers", chunked(host, "/cut-HTTP-3-trailers", b"2\r\nok\r\n0\r\nX-Odd: a")),
    ):
        found.attack(f"a body that ends before {what}", ended_early, host, request)
        properly = request.replace(
            b"/cut-HTTP-3-", b"/cut-HTTP-3-properly-"
        )  # the origin's word tells which it was
        found.attack(f"a body that ends properly before {what}", left_with_goodbye, host, properly)
    _tried("extensions", whole, host, chunked(host, "/ok", b"2;attack-HTTP-3=extension\r\nok\r\n0\r\n\r\n"))
    trailers = b"X-Odd: attack-HTTP-3-trailer\r\nAuthorization: attack-HTTP-3-trailer\r\n\r\n"
    _tried("trailers", whole, host, chunked(host, "/ok", b"2\r\nok\r\n0\r\n" + trailers))
    found.attack("a body that is longer than its length", longer)
    _answers_that_lie(found)


def chunked(host: str, path: str, body: bytes) -> bytes:
    return post(host, path, "Transfer-Encoding: chunked\r\nConnection: close", body)


def ended_early(host: str, request: bytes) -> str:
    """Send it, and no more. RefusedError unless it is answered as if it were whole."""
    with connected(host) as stream:
        stream.sendall(request)
        socket.socket.shutdown(stream, socket.SHUT_WR)  # of TCP alone: the answer is still to be read
        got = rest(stream)
    if not got.startswith(b"HTTP/1.1 200 "):
        raise RefusedError(repr(got[:40]))
    return repr(got[:40])


def left_with_goodbye(host: str, request: bytes) -> str:
    """The same with TLS's own end. What is answered cannot be read then: the origin knows whether it took it."""
    with connected(host) as stream:
        stream.sendall(request)
        with contextlib.suppress(OSError):
            stream.unwrap()
    raise RefusedError("left")


def longer() -> str:
    """What is too much is a request of its own, and judged."""
    paths = name("paths")
    request = get("/open/ok", paths, "Content-Length: 2") + b"ok" + get("/attack-HTTP-3-longer", paths)
    with connected(paths) as stream:
        stream.sendall(request)
        answer(stream)
        return asked(stream, b"")


def _answers_that_lie(found: Probe) -> None:
    bound = name("bound")

    def smuggled() -> str:
        with connected(bound) as stream:
            asked(stream, get("/longer", bound))
            stream.sendall(get("/control-HTTP-3-next", bound))
            second = answer(stream)[1]
        if b"smuggled" not in second:
            raise RefusedError("the next request got its own answer")
        return "the next request got what stood behind the first answer"

    def looks_whole() -> str:
        got = whole(bound, get("/shorter-chunked", bound, "Connection: close"))
        if not got.endswith(b"0\r\n\r\n"):
            raise RefusedError(f"cut after {len(got)} bytes")
        return "what was cut looks whole"

    found.attack("an answer that is longer than its length", smuggled)
    found.attack("an answer that breaks off", looks_whole)
    found.attack("an answer with two lengths", fetch, bound, "/two-lengths")


@probe("HTTP-4")
def path_rules(found: Probe) -> None:
    host = name("paths")
    found.control("the path that is granted", lambda: fetch(host, "/open/control-HTTP-4"))
    for path in (
        "/attack-HTTP-4-plain",
        "/open/../attack-HTTP-4",
        "/open/%2e%2e/attack-HTTP-4",
        "/open/..%2fattack-HTTP-4",
        "/open/%2e%2e%2fattack-HTTP-4",
        "/open/..;/attack-HTTP-4",
        "/open/..\\attack-HTTP-4",
        "//attack-HTTP-4/open/x",
    ):
        found.attack(path, fetch, host, path)


@probe("HTTP-7")
def other_method(found: Probe) -> None:
    host = name("paths")
    found.control("the method that is granted", lambda: fetch(host, "/open/control-HTTP-7"))
    found.attack("DELETE", lambda: once(host, get("/open/attack-HTTP-7", host).replace(b"GET", b"DELETE", 1)))
    for header in ("X-HTTP-Method-Override", "X-Method-Override", "X_HTTP_Method"):
        found.attack(
            f"GET with {header}: DELETE",
            fetch,
            host,
            "/open/attack-HTTP-7-override",
            f"{header}: DELETE",
        )
