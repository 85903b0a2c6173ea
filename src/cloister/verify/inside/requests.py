"""Destination confusion, credentials, and how HTTP is read (ID, HTTP)."""

from __future__ import annotations

import base64
import re

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
    probe,
    resolve,
    secured,
)


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
    other, placeholder = name("paths"), CONFIG["placeholder"]
    basic = base64.b64encode(f"user:{placeholder}".encode()).decode()
    found.control("a request without it", lambda: fetch(other, "/open/control-ID-5"))
    found.attack(
        "the placeholder in a header",
        lambda: fetch(other, "/open/attack-ID-5-header", f"X-Token: {placeholder}"),
    )
    found.attack(
        "within Basic", lambda: fetch(other, "/open/attack-ID-5-basic", f"Authorization: Basic {basic}")
    )
    found.attack("in the query", lambda: fetch(other, f"/open/attack-ID-5-query?t={placeholder}"))
    found.attack("in the path", lambda: fetch(other, f"/open/attack-ID-5-path/{placeholder}"))


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
        with connected(bound) as stream:
            stream.sendall(get(path, bound))
            status, whole = answer(stream)
        secret = SECRET.search(whole)
        if status != 200 or secret is None:
            raise RefusedError(f"{status}, without the value")
        return "the value came back"

    found.control("an answer comes back", lambda: fetch(bound, "/control-ID-9"))
    found.attack("an upstream that echoes the credential in head and body", lambda: echoed("/echo"))
    found.attack("and in base64", lambda: echoed_base64(bound))


def echoed_base64(bound: str) -> str:
    with connected(bound) as stream:
        stream.sendall(get("/echo-base64", bound))
        whole = answer(stream)[1]
    for word in re.findall(rb"[A-Za-z0-9+/=]{40,}", whole):
        if SECRET.search(base64.b64decode(word + b"==")):
            return "the value came back"
    raise RefusedError("without the value")


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


# HTTP.


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


def post(host: str, path: str, headers: str, body: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n\r\n{body}".encode()


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
