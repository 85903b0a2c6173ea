"""WebSockets, and what only pretends to be one (HTTP-6)."""

from __future__ import annotations

import base64
import os
import ssl

from cloister.verify.inside.talk import (
    Probe,
    RefusedError,
    connected,
    fetch,
    get,
    name,
    probe,
    rest,
    status_of_head,
)


def upgrade(host: str, path: str, *headers: str, protocol: str = "websocket") -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        "Connection: Upgrade",
        f"Upgrade: {protocol}",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    )
    return get(path, host, *lines, *headers)


def websocket(host: str, path: str) -> ssl.SSLSocket:
    """An open one. RefusedError if it is not accepted."""
    stream = connected(host)
    stream.sendall(upgrade(host, path))
    status = status_of_head(stream)
    if status != 101:
        stream.close()
        raise RefusedError(f"{status}")
    return stream


def text_frame(payload: bytes, *, first: bool = True, last: bool = True) -> bytes:
    """A frame of a client, masked with zeros (RFC 6455 section 5.2)."""
    return bytes([0x80 * last | first, 0x80 | len(payload)]) + bytes(4) + payload


def message(stream: ssl.SSLSocket) -> bytes:
    """The next one's payload. EOFError if the other side closes instead."""
    head = stream.recv(2)
    if len(head) < 2 or head[0] & 15 == 8:
        raise EOFError("closed")
    payload = b""
    while len(payload) < head[1]:
        part = stream.recv(head[1] - len(payload))
        if not part:
            raise EOFError("closed within a message")
        payload += part
    return payload


@probe("HTTP-6")
def upgrades(found: Probe) -> None:
    bound, paths = name("bound"), name("paths")

    def proper() -> str:
        with websocket(bound, "/websocket") as stream:
            message(stream)  # its greeting
            stream.sendall(text_frame(b"control-HTTP-6"))
            return repr(message(stream))

    found.control("a WebSocket carries a message", proper)
    found.control("a request without one", lambda: fetch(bound, "/control-HTTP-6"))

    def behind(request: bytes, host: str = bound) -> str:
        """Bytes behind a switch that must not be one."""
        with connected(host) as stream:
            stream.sendall(request)
            status = status_of_head(stream)
            if status != 101:
                raise RefusedError(f"{status}")
            stream.sendall(b"attack-HTTP-6-behind\r\n\r\n")
            return "101"

    found.attack("a 101 that nobody asked for", behind, get("/unsolicited-101", bound))
    found.attack("a 101 with a wrong accept key", behind, upgrade(bound, "/wrong-accept"))
    found.attack("a 101 to another protocol", behind, upgrade(bound, "/other-protocol"))
    found.attack("switch to another protocol", behind, upgrade(bound, "/other-protocol", protocol="verify"))

    def smuggled(opening: bytes) -> str:
        """What stands behind an upgrade that does not happen is a request, and judged."""
        with connected(paths) as stream:
            stream.sendall(opening + get("/attack-HTTP-6-smuggled", paths, "Connection: close"))
            got = rest(stream)
        if got.count(b" 200 OK\r\n") > 1:
            return "both were answered"
        raise RefusedError(repr(got[:60]))

    for what, opening in (
        ("that is refused", upgrade(paths, "/open/x")),
        ("without a key", get("/open/x", paths, "Connection: Upgrade", "Upgrade: websocket")),
        (
            "to h2c",
            get(
                "/open/x",
                paths,
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABk",
            ),
        ),
        ("to another protocol", upgrade(paths, "/open/x", protocol="verify")),
    ):
        found.attack(f"a request behind an upgrade {what}", smuggled, opening)
