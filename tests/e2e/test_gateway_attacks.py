"""Attacks on the gateway's own parsers, sockets, limits and log, from inside a live sandbox (ATTACKS HTTP, TLS, NAME, AV)."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.fakes.origins import HttpsOrigin, SilentOrigin
from tests.world import Cloister

pytestmark = pytest.mark.sandbox

RESOLVER = "127.0.0.77"


def python(script: str) -> list[str]:
    return ["/usr/bin/python3", "-c", script]


# `http(...)`: the statuses of all answers on one connection; `hello(name)`: a real ClientHello; `tls(...)`: what comes back.
PRELUDE = r"""
import re, socket, ssl, time
def http(*parts, host="plain.example.test", port=80):
    out = b""
    with socket.create_connection((host, port), 10) as s:
        s.settimeout(10)
        try:
            for part in parts:
                s.sendall(part)
            s.shutdown(socket.SHUT_WR)
            while part := s.recv(65536):
                out += part
        except OSError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", out)]
def hello(name):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="x" * len(name)).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read().replace(b"x" * len(name), name)
def records(handshake, size):
    parts = (handshake[i:i + size] for i in range(0, len(handshake), size))
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)
def tls(*parts):
    with socket.create_connection(("origin.example.test", 443), 10) as s:
        s.settimeout(10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                s.sendall(part); time.sleep(0.01)
            s.recv(1)
        except OSError:
            pass
HOST, EVIL = b"Host: plain.example.test\r\n", b"Host: evil.example.test\r\n"
INNER = b"GET /smuggled HTTP/1.1\r\n" + EVIL + b"\r\n"
"""


def test_nothing_is_smuggled_over_plain_http(reach: Cloister, http_origin: HttpsOrigin) -> None:
    """HTTP-1 to HTTP-3, HTTP-5, HTTP-6: whatever rides behind a request is judged as a request of its own, or is refused."""
    script = (
        PRELUDE
        + r"""
POST, CHUNKED = b"POST /sent HTTP/1.1\r\n" + HOST, b"Transfer-Encoding: chunked\r\n"
WS = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n"
for attack in (
    POST + b"Content-Length: 3\r\n\r\nabc" + INNER,
    POST + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + INNER,
    POST + CHUNKED + b"\r\n0;x=y\r\nHost: evil.example.test\r\n\r\n" + INNER,
    POST + b"Transfer_Encoding: chunked\r\nContent_Length: 999\r\nContent-Length: 3\r\n\r\nabc" + INNER,
    POST + WS + b"\r\n" + INNER,
    b"GET /sent HTTP/1.1\r\n" + HOST + WS + b"\r\n" + INNER,
    POST + b"Connection: content-length, host\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    POST + CHUNKED + b"Content-Length: 0\r\n\r\n0\r\n\r\n" + INNER,
    POST + b"Content-Length: 0, %d\r\n\r\n" % len(INNER) + INNER,
    POST + b"Content-Length: +0\r\n\r\n" + INNER,
    POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + INNER,
    b"GET /n HTTP/1.1\r\n" + HOST + b"X: a\r\n " + EVIL + b"\r\n",
    b"GET /n HTTP/1.1\r\nHost : evil.example.test\r\n" + HOST + b"\r\n",
    b"GET http://plain.example.test@evil.example.test/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /n HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT plain.example.test:80 HTTP/1.1\r\nHost: plain.example.test:80\r\n\r\n" + INNER,
):
    print(http(attack)[:1])
print(http(b"".join(b"GET /pipelined HTTP/1.1\r\n" + HOST + b"\r\n" for _ in range(30)) + INNER) == [200] * 30 + [403])
"""
    )
    before = len(http_origin.seen)
    done = reach.run(*python(script))
    expected = [*["[200]"] * 7, *["[400]"] * 9, "[403]", "True"]
    assert done.out.splitlines() == expected, done
    seen = http_origin.seen[before:]
    assert {one.host for one in seen} == {"plain.example.test"}
    assert [one.path for one in seen] == ["/sent"] * 7 + ["/pipelined"] * 30


def test_no_other_name_in_a_cut_or_doubled_hello(reach: Cloister, origin: HttpsOrigin) -> None:
    """TLS-2: the name is found however the hello is cut; a hello that two parsers could read differently dials nothing."""
    script = (
        PRELUDE
        + r"""
good, evil = hello(b"origin.example.test"), hello(b"evil.example.test")
for whole in ([good], [good[i:i + 7] for i in range(0, len(good), 7)], [records(good[5:], 50)], [hello(b"ORIGIN.example.TEST.")]):
    tls(*whole)
print("attacks", flush=True); input()
for attack in (evil, evil + good, records(evil[5:], 50), records(good[5:] + evil[5:], 16000), records(good[5:], 1),
               b"\x16\x03\x01\x00\x00" + good, b"\x14\x03\x03\x00\x01\x01" + good, b"\x15\x03\x03\x00\x02\x01\x70" + good,
               hello(b"origin.example\x00test"), hello(b"origin.example.test.."), hello(b"198.18.0.2"), b"\x80\x2e\x01\x03\x03" + bytes(60)):
    tls(attack)
print("done")
"""
    )
    before = origin.connections
    process = reach.start("run", "--", *python(script))
    assert process.stdout is not None
    assert process.stdout.readline() == "attacks\n"
    assert origin.connections == before + 4, "the control: these four are the same name"
    out, err = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("done\n", 0), err
    assert origin.connections == before + 4


def test_the_proxy_reaches_no_other_target(reach: Cloister, origin: HttpsOrigin) -> None:
    """NAME-1 to NAME-3 through CONNECT and absolute targets."""
    script = (
        PRELUDE
        + r"""
def proxy(request): return http(request, host="127.0.0.1", port=3128)
def connect(target): return proxy(b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n")
print(connect(b"origin.example.test:443"), proxy(b"GET http://plain.example.test/ HTTP/1.1\r\n" + HOST + b"\r\n"))
for target in (b"198.18.0.2:443", b"[::1]:443", b"[fdc1:157:e400::2]:443", b"0x7f.1:443", b"2130706433:443", b"localhost:443",
               b"origin.example.test:0", b"origin.example.test:00443", b"origin.example.test:65979", b"origin.example.test:22",
               b"origin.example.test", b"a@origin.example.test:443", b"origin.example.test:443\x00", b"origin.example.test\x00.evil:443",
               b"line.example.test:443", b"a.wild.example.test:443", b"wild.example.test:8443", b"x" * 9000 + b":443"):
    assert connect(target)[0] in (400, 403), target
for url in (b"http://evil.example.test/", b"https://plain.example.test/", b"ftp://plain.example.test/", b"http://198.18.0.3/",
            b"http://[::1]/", b"http://plain.example.test:3128/", b"http://evil.example.test#@plain.example.test/"):
    assert proxy(b"GET " + url + b" HTTP/1.1\r\nHost: " + url.split(b"/")[2] + b"\r\n\r\n")[0] in (400, 403), url
    assert proxy(b"GET " + url + b" HTTP/1.1\r\n" + HOST + b"\r\n\r\n")[0] in (400, 403), url
"""
    )
    done = reach.run(*python(script))
    assert (done.code, done.out) == (0, "[200] [200]\n"), done


def test_the_gateways_ports_cannot_be_shared_or_taken(reach: Cloister) -> None:
    """A program of the sandbox cannot put itself in the gateway's place, nor beside it."""
    script = """
import socket
def bind(kind, address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            s.bind((address, port)); kind == socket.SOCK_STREAM and s.listen(); return True
        except OSError:
            return False
print(bind(socket.SOCK_STREAM, "127.0.0.1", 8080), bind(socket.SOCK_DGRAM, "::1", 8080))
taken = [(kind, address, port) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for port in (53, 80, 443)
         for address in ("0.0.0.0", "127.0.0.1", "198.18.0.2", "::", "::1")]
taken += [(socket.SOCK_STREAM, address, 3128) for address in ("0.0.0.0", "127.0.0.1", "::", "::1")]
print([one for one in taken if bind(*one)])
"""
    done = reach.run(*python(script))
    assert (done.code, done.out) == (0, "True True\n[]\n"), done


def test_what_left_is_in_the_log_however_it_ended(reach: Cloister) -> None:
    """The sandbox chooses how its requests end: broken off, or cut by its own end. Neither is a way past the log."""
    script = """
import socket
def post(path, length):
    s = socket.create_connection(("silent.example.test", 80), 10)
    s.sendall(b"POST " + path + b" HTTP/1.1\\r\\nHost: silent.example.test\\r\\nContent-Length: %d\\r\\n\\r\\nsecret" % length)
    input()
    return s
post(b"/half", 1000).close()
left = post(b"/hang", 6)
"""
    with SilentOrigin() as origin:
        config = (reach.home / ".config/cloister/config.toml").read_text()
        config = config.replace('allow = ["', 'allow = ["silent.example.test", "')
        pin = f'[network.hosts]\n"silent.example.test" = "127.0.0.1:{origin.port}"'
        reach.configure(config.replace("[network.hosts]", pin))
        process = reach.start("run", "--", *python(script))
        assert process.stdin is not None
        for count in (1, 2):  # the control: it left
            origin.wait_for(b"secret", count)
            process.stdin.write("\n")
            process.stdin.flush()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    written = {event["path"]: event["sent_bytes"] for event in reach.events("request")}
    assert written == {"/half": 6, "/hang": 6}


def test_floods_end_and_the_gateway_goes_on(reach: Cloister, http_origin: HttpsOrigin) -> None:
    """AV-1: half heads, resets, invented names and malformed datagrams; afterwards everything works as before."""
    script = r"""
import resource, socket, struct, time
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
where = socket.getaddrinfo("plain.example.test", 80, socket.AF_INET)[0][4][0]
def fetch():
    with socket.create_connection(("plain.example.test", 80), 30) as s:
        s.settimeout(30)
        s.sendall(b"GET /after HTTP/1.1\r\nHost: plain.example.test\r\nConnection: close\r\n\r\n")
        return b" 200 " in s.recv(4096)
half = []
for number in range(min(1500, limit - 50)):
    s = socket.create_connection((where, (80, 443)[number % 2]), 30); half.append(s)
    s.sendall((b"GET / HTTP/1.1\r\nX: " + b"y" * 4000, b"\x16\x03\x01\x40\x00\x01\x00\x3f")[number % 2])
print(fetch())
for s in half:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for number in range(3000):
        s.sendto((b"\xff" * 60, bytes(12), b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", bytes(4000))[number % 4], ("127.0.0.1", 53))
for number in range(300):
    try: socket.getaddrinfo(f"n{number}.evil.example.test", 80)
    except OSError: pass
print(fetch())
"""
    done = reach.run(*python(script), timeout_s=120)
    assert (done.code, done.out) == (0, "True\nTrue\n"), done
    faults = [event for event in reach.events("alarm") if "internal error" in str(event.get("reason"))]
    assert not faults


class CorporateResolver:
    """The host's DNS server: `*.corp.example.test` has an address, nothing else has one."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((RESOLVER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(512)
            except OSError:
                return
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1 : at + 1 + data[at]].decode())
                at += 1 + data[at]
            name, question = ".".join(labels), data[12 : at + 5]
            self.asked.append(name)
            known = name.endswith(".corp.example.test")
            record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("10.1.2.3")
            found = known and question[-3] == 1
            head = data[:2] + (b"\x81\x80" if known else b"\x81\x83") + struct.pack(">4H", 1, found, 0, 0)
            self._socket.sendto(head + question + record * found, peer)


@pytest.fixture(scope="module")
def resolver() -> Iterator[CorporateResolver]:
    if os.geteuid() != 0:
        pytest.skip("a DNS server and a resolv.conf for one process need root")
    running = CorporateResolver()
    yield running
    running.close()


def test_a_search_list_of_the_host_makes_no_other_name(reach: Cloister, resolver: CorporateResolver) -> None:
    """NAME-5: what is judged is what is resolved, also where the host's resolv.conf has a search list and many dots."""
    resolver.asked.clear()
    conf = reach.write(
        reach.base / "resolv.conf", f"nameserver {RESOLVER}\nsearch corp.example.test\noptions ndots:5\n"
    )
    config = (reach.home / ".config/cloister/config.toml").read_text()
    reach.configure(config.replace('allow = ["', 'allow = ["gone.example.test", "www.corp.example.test", "'))
    reach.prefix = [
        "unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(conf),
    ]  # fmt: skip
    done = reach.sh(
        "for name in gone.example.test www.corp.example.test; do curl -sS --max-time 20 http://$name/; done"
    )
    assert "did not resolve" in done.out, done
    assert "10.1.2.3 is not public" in done.out, "the control: the resolver was asked, and answered"
    assert set(resolver.asked) == {"gone.example.test", "www.corp.example.test"}
