"""HTTP/2, written by hand: what a library would not send (HTTP-5; RFC 9113, and RFC 7541 for heads)."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Sequence

from cloister.verify.inside.talk import (
    Probe,
    RefusedError,
    context,
    dial,
    fetch,
    get,
    name,
    once,
    probe,
    resolve,
)

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _END_HEADERS = 0x1, 0x4
_OK = 0x88  # ":status: 200" of the static table
_FLOOD = 1200  # frames that carry nothing
_RESETS = 300
_Pairs = Sequence[tuple[bytes, bytes]]


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def h2_block(pairs: _Pairs) -> bytes:
    """Every header as a literal, without a table and without Huffman's code."""

    def text(data: bytes) -> bytes:
        if len(data) < 127:
            return bytes([len(data)]) + data
        more = len(data) - 127
        return bytes([127, more & 127 | 128, more >> 7]) + data

    return b"".join(b"\0" + text(one) + text(value) for one, value in pairs)


def h2_connected(host: str) -> ssl.SSLSocket:
    agreed = context(verify=True, protocol="h2")
    stream = agreed.wrap_socket(dial(resolve(host), 443), server_hostname=host)
    if stream.selected_alpn_protocol() != "h2":
        raise RefusedError("HTTP/2 is not spoken here")
    stream.sendall(_PREFACE + h2_frame(_SETTINGS, 0, 0))
    return stream


def h2_frames(stream: socket.socket) -> Callable[[], tuple[int, int, bytes]]:
    """A reader: the kind, the stream and the payload of the next frame. EOFError at the end."""
    data = b""

    def exactly(count: int) -> bytes:
        nonlocal data
        while len(data) < count:
            part = stream.recv(65536)
            if not part:
                raise EOFError("closed")
            data += part
        taken, data = data[:count], data[count:]
        return taken

    def following() -> tuple[int, int, bytes]:
        head = exactly(9)
        payload = exactly(int.from_bytes(head[:3], "big"))
        return head[3], int.from_bytes(head[5:9], "big"), payload

    return following


def h2_asked(host: str, pairs: _Pairs, body: bytes = b"") -> str:
    """One request. RefusedError unless its answer is a 200."""
    with h2_connected(host) as stream:
        flags = _END_HEADERS if body else _END_HEADERS | _END_STREAM
        request = h2_frame(_HEADERS, flags, 1, h2_block(pairs))
        if body:
            request += h2_frame(_DATA, _END_STREAM, 1, body)
        stream.sendall(request)
        return h2_answer(stream)


def h2_answer(stream: socket.socket) -> str:
    following = h2_frames(stream)
    while True:
        kind, number, payload = following()
        if kind == _HEADERS and number == 1:
            if payload[0] != _OK:
                raise RefusedError(f"an answer that begins with {payload[:4].hex()}")
            return "200"
        if kind == _GOAWAY or (kind == _RESET and number == 1):
            raise RefusedError("reset" if kind == _RESET else "the connection was ended")


def h2_head(host: str, path: str, method: bytes = b"GET") -> list[tuple[bytes, bytes]]:
    return [
        (b":method", method), (b":scheme", b"https"), (b":authority", host.encode()), (b":path", path.encode()),
    ]  # fmt: skip


@probe("HTTP-5")
def second_version(found: Probe) -> None:
    bound, judged, paths = name("bound"), name("judged"), name("paths")
    found.control("a request over HTTP/2", lambda: h2_asked(judged, h2_head(judged, "/control-HTTP-5")))
    found.control(
        "one with a body", lambda: h2_asked(judged, h2_head(judged, "/control-HTTP-5", b"POST"), b"body")
    )
    for what, pairs in h2_odd_heads():
        hosts = [host for host in (bound, paths) if (b":authority", host.encode()) in pairs]
        found.attack(what, h2_asked, hosts[0] if hosts else judged, pairs)
    for what, declared in (("shorter", b"50"), ("longer", b"1"), ("twice", b"4, 5")):
        pairs = [*h2_head(judged, f"/cut-HTTP-5-{what}", b"POST"), (b"content-length", declared)]
        found.attack(f"a body whose length is another: {what}", h2_asked, judged, pairs, b"body")
    _without_tls(found)
    _floods(found, judged)
    found.control("and the gateway serves on", lambda: fetch(judged, "/control-HTTP-5-after"))


def h2_odd_heads() -> Sequence[tuple[str, _Pairs]]:
    """What is wrong with each, and its headers; for the host that :authority names, or `judged`."""
    bound, judged, paths, evil = name("bound"), name("judged"), name("paths"), name("evil").encode()
    head = h2_head(judged, "/attack-HTTP-5-head")
    return (
        ("another :authority", [*head[:2], (b":authority", evil), head[3]]),
        ("a Host that differs from :authority", [*head, (b"host", evil)]),
        ("a Host alone, of another name", [*head[:2], head[3], (b"host", evil)]),
        (":authority twice", [*head[:3], (b":authority", evil), head[3]]),
        (":path twice", [*head, (b":path", b"/attack-HTTP-5-second")]),
        ("a :path that is a URL", [*head[:3], (b":path", b"https://" + evil + b"/attack-HTTP-5-url")]),
        ("a :path without its slash", [*head[:3], (b":path", b"attack-HTTP-5-slash")]),
        ("a :path with a space", [*head[:3], (b":path", b"/ HTTP/1.1\r\nX: /attack-HTTP-5-space")]),
        ("another :scheme", [head[0], (b":scheme", b"http"), *head[2:]]),
        ("a pseudo-header behind a header", [*head[:3], (b"x-odd", b"a"), head[3]]),
        ("a pseudo-header of its own", [*head, (b":odd", b"a")]),
        ("a method with a line end", h2_head(bound, "/x", b"GET /attack-HTTP-5-method HTTP/1.1\r\nX:")),
        ("CONNECT", [(b":method", b"CONNECT"), head[2]]),
        ("extended CONNECT", [(b":method", b"CONNECT"), *head[1:], (b":protocol", b"websocket")]),
        ("a name in upper case", [*head, (b"X-Odd", b"a")]),
        ("a name with a colon", [*head, (b"x-odd: a\r\nx-other", b"attack-HTTP-5-name")]),
        ("a value with a line end", [*head, (b"x-odd", b"a\r\nx-split: attack-HTTP-5-value")]),
        ("a value with NUL", [*head, (b"x-odd", b"a\0attack-HTTP-5-nul")]),
        ("Transfer-Encoding", [*head, (b"transfer-encoding", b"chunked")]),
        ("Connection", [*head, (b"connection", b"x-odd")]),
        ("Upgrade", [*head, (b"upgrade", b"h2c")]),
        ("a path out of a rule's", [*h2_head(paths, "/open/../attack-HTTP-5-path")]),
    )


def _without_tls(found: Probe) -> None:
    plain, judged = name("plain"), name("judged")
    settings = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")

    def answered(stream: socket.socket) -> str:
        with stream:
            stream.sendall(_PREFACE + h2_frame(_SETTINGS, 0, 0))
            got = stream.recv(9)
        if len(got) < 4 or got[3] != _SETTINGS:
            raise RefusedError(repr(got))
        return "settings"

    def cleartext_upgrade() -> str:
        with dial(resolve(plain), 80) as stream:
            stream.sendall(get("/attack-HTTP-5-h2c", plain, *settings))
            got = stream.recv(12)
        if got[9:12] not in (b"101", b"200"):
            raise RefusedError(repr(got))
        return repr(got)

    def one_for_the_other() -> ssl.SSLSocket:
        agreed = context(verify=True, protocol="http/1.1")
        return agreed.wrap_socket(dial(resolve(judged), 443), server_hostname=judged)

    found.attack("HTTP/2 over cleartext, without asking", lambda: answered(dial(resolve(plain), 80)))
    found.attack("HTTP/2 where HTTP/1.1 was agreed on", lambda: answered(one_for_the_other()))
    found.attack("an upgrade to h2c", cleartext_upgrade)
    found.attack(
        "an upgrade to h2c, within TLS", lambda: once(judged, get("/attack-HTTP-5-h2c", judged, *settings))
    )


def _floods(found: Probe, host: str) -> None:
    block = h2_block(h2_head(host, "/reset"))

    def endured(frames: bytes) -> str:
        """Whether the gateway took it all, and serves the connection on."""
        with h2_connected(host) as stream:
            stream.sendall(frames + h2_frame(_PING, 0, 0, b"attacked"))
            following, before = h2_frames(stream), b""
            while True:
                kind, _, payload = following()
                if kind == _GOAWAY:
                    raise RefusedError("the connection was ended")
                if kind == _PING and payload == before:
                    return "it was endured"
                if kind == _PING and payload == b"attacked":  # it has read that far, and may end it now
                    before = b"goes on?"
                    stream.sendall(h2_frame(_PING, 0, 0, before))

    opened = [
        h2_frame(_HEADERS, _END_HEADERS | _END_STREAM, number, block) + h2_frame(_RESET, 0, number, bytes(4))
        for number in range(1, 2 * _RESETS, 2)
    ]
    found.attack("streams that are reset at once", endured, b"".join(opened))
    endless = h2_frame(_HEADERS, _END_STREAM, 1, block) + _FLOOD // 10 * h2_frame(_CONTINUATION, 0, 1, b"")
    found.attack("a head that goes on and on", endured, endless + h2_frame(_CONTINUATION, _END_HEADERS, 1))
    found.attack("settings without end", endured, _FLOOD * h2_frame(_SETTINGS, 0, 0))
    found.attack("pings without end", endured, _FLOOD * h2_frame(_PING, 0, 0, bytes(8)))
