"""The origin behind a verification's names: it reads requests well enough to say what arrived, and answers in odd ways.

Rule 1: what arrives is told to `note` with the server name that it came for; `verdict.py` and `observed.py` judge it.
Rule 2: what counts is what a real server would act on: a request of a path `/cut-ID-…` is noted as `attack-ID-whole`
        once it is whole, by its framing; a message of a WebSocket once it is unmasked; a body once it is decoded.
Rule 3: a route's answer may break the protocol: that is its purpose (`/longer`, `/unsolicited-101`, …).
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import time
import zlib
from collections.abc import Callable, Mapping

from cloister.gateway.http.websocket import accept_key
from cloister.values import dataclass
from cloister.verify.overlay import NAMES

_KEPT_OF_A_BODY_BYTES = 64 << 10
_PAUSE_S = 0.02  # so that two parts of an answer arrive apart
_MEGABYTE = bytes(1 << 20)

Note = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A request that is whole."""

    head: bytes
    body_bytes: int
    digest: str

    @property
    def path(self) -> str:
        return path_of(self.head)

    def value(self, name: str) -> bytes:
        """A header's value; empty if there is none."""
        found = re.search(rb"(?i)\r\n" + name.encode() + rb": *([^\r\n]*)", self.head)
        return found.group(1) if found else b""

    @property
    def credential(self) -> bytes:
        """What stands behind the scheme in Authorization."""
        return self.value("authorization").rpartition(b" ")[2]


class Peer:
    """A connection, and what of it has been received and not been used."""

    def __init__(self, sock: socket.socket, note: Note) -> None:
        self.sock = sock
        self.note = note
        self._data = bytearray()

    def take(self, count: int) -> bytes:
        """Exactly so many bytes. EOFError."""
        while len(self._data) < count:
            self._more()
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    def until(self, end: bytes) -> bytes:
        """Up to `end`, with it. EOFError."""
        while end not in self._data:
            self._more()
        return self.take(self._data.index(end) + len(end))

    def silent(self) -> None:
        """Only note what comes, until its end."""
        while True:
            if self._data:
                self.note(bytes(self._data))
            self._data.clear()
            try:
                self._more()
            except EOFError:
                return

    def _more(self) -> None:
        part = self.sock.recv(1 << 18)
        if not part:
            if self._data:
                self.note(bytes(self._data))
            raise EOFError
        self._data += part


def serve(sock: socket.socket, note: Note) -> None:
    """Answer requests until the other side leaves, or an answer ends the connection."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Peer(sock, note)
    try:
        while True:
            head = peer.until(b"\r\n\r\n")
            note(head)
            arrived = _whole(peer, head)
            path = arrived.path
            if (found := re.match(r"/cut-([A-Z]+-[0-9]+)", path)) is not None:
                note(f"attack-{found[1]}-whole: {path}".encode())
            route = ROUTES.get(path, ok)
            if not route(peer, arrived):
                return
    except EOFError:
        return


def path_of(head: bytes) -> str:
    """The path of a request, without its query."""
    parts = head.split(b"\r\n", 1)[0].split(b" ")
    return parts[1].partition(b"?")[0].decode("latin-1") if len(parts) > 1 else "/"


def _whole(peer: Peer, head: bytes) -> Arrived:
    """Read the body. EOFError if it does not come whole."""
    first = head.split(b"\r\n", 1)[0] + b"\r\n"
    inflate = zlib.decompressobj(47) if re.search(rb"(?i)\r\ncontent-encoding: *gzip", head) else None
    digest, count, kept = hashlib.sha256(), 0, b""
    for part in _parts(peer, head):
        digest.update(part)
        count += len(part)
        if count <= _KEPT_OF_A_BODY_BYTES:
            kept += inflate.decompress(part, _KEPT_OF_A_BODY_BYTES) if inflate else part
    if kept:
        peer.note(first + kept)
    return Arrived(head=head, body_bytes=count, digest=digest.hexdigest())


def _parts(peer: Peer, head: bytes) -> list[bytes]:
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        parts = []
        while True:
            text, extension, more = peer.until(b"\r\n").partition(b";")
            peer.note(extension + more)
            if not (size := int(text, 16)):
                break
            parts.append(peer.take(size + 2)[:-2])
        trailers = b""
        while (line := peer.until(b"\r\n")) != b"\r\n":
            trailers += line
        if trailers:
            peer.note(b"trailers: " + trailers)
        return parts
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return [peer.take(int(length[1]))] if length else []


# Answers: each returns whether the connection goes on.

Route = Callable[[Peer, Arrived], bool]


def _send(
    peer: Peer, body: bytes, *headers: bytes, status: bytes = b"200 OK", length: int | None = None
) -> bool:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: text/plain", *headers]
    lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    peer.sock.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    return True


def _send_parts(
    peer: Peer, parts: list[bytes], *headers: bytes, trailer: bytes = b"", end: bool = True
) -> bool:
    """Chunked, a pause between two parts."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/plain", b"Transfer-Encoding: chunked", *headers]
    peer.sock.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
    for part in parts:
        peer.sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        time.sleep(_PAUSE_S)
    if end:
        peer.sock.sendall(b"0\r\n" + trailer + b"\r\n")
    return end


def ok(peer: Peer, _: Arrived) -> bool:
    return _send(peer, b"ok\n")


def _echo(peer: Peer, arrived: Arrived) -> bool:
    value = arrived.value("authorization")
    return _send(peer, b"you sent " + value + b"\n", b"X-Echo: " + value)


def _echo_base64(peer: Peer, arrived: Arrived) -> bool:
    return _send(peer, base64.b64encode(arrived.credential) + b"\n")


def _echo_lines(peer: Peer, arrived: Arrived) -> bool:
    """In MIME's lines, of which the first ends within the value."""
    return _send(peer, base64.encodebytes(b"." * 40 + arrived.credential))


def _zipped(data: bytes, window_bits: int) -> bytes:
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(data) + packer.flush()


def _echo_gzip(peer: Peer, arrived: Arrived) -> bool:
    return _send(peer, _zipped(b"you sent " + arrived.credential, 31), b"Content-Encoding: gzip")


def _echo_deflate(peer: Peer, arrived: Arrived) -> bool:
    return _send(peer, _zipped(b"you sent " + arrived.credential, 15), b"Content-Encoding: deflate")


def _halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def _echo_split(peer: Peer, arrived: Arrived) -> bool:
    return _send_parts(peer, _halves(arrived.credential))


def _echo_split_gzip(peer: Peer, arrived: Arrived) -> bool:
    return _send_parts(peer, _halves(_zipped(arrived.credential, 31)), b"Content-Encoding: gzip")


def _echo_trailer(peer: Peer, arrived: Arrived) -> bool:
    trailer = b"X-Echo: " + arrived.credential + b"\r\n"
    return _send_parts(peer, [b"see the trailer\n"], b"Trailer: X-Echo", trailer=trailer)


def _echo_location(peer: Peer, arrived: Arrived) -> bool:
    target = f"https://{NAMES['open']}/attack-ID-9-followed?token=".encode() + arrived.credential
    return _send(peer, b"", b"Location: " + target, status=b"302 Found")


def _redirect(which: str) -> Route:
    location = f"Location: https://{NAMES[which]}/open/attack-ID-6-followed".encode()
    return lambda peer, _: _send(peer, b"", location, status=b"307 Temporary Redirect")


def _longer(peer: Peer, _: Arrived) -> bool:
    """An answer, and one more behind it that nobody asked for."""
    return _send(peer, b"okHTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\nsmuggled behind the ok", length=2)


def _shorter(peer: Peer, _: Arrived) -> bool:
    _send(peer, b"only this", length=100)
    return False


def _shorter_chunked(peer: Peer, _: Arrived) -> bool:
    return _send_parts(peer, [b"only this"], end=False)


def _two_lengths(peer: Peer, _: Arrived) -> bool:
    return _send(peer, b"ok", b"Content-Length: 40")


def _hash(peer: Peer, arrived: Arrived) -> bool:
    return _send(peer, f"{arrived.body_bytes} {arrived.digest}".encode())


def _large(peer: Peer, _: Arrived) -> bool:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 << 20))
    for _number in range(32):
        peer.sock.sendall(_MEGABYTE)
    return True


def _events(peer: Peer, _: Arrived) -> bool:
    """A first event, and no further one until the other side leaves."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    peer.sock.sendall(head + b"d\r\ndata: first\n\n\r\n")
    return _hang(peer, _)


def _hang(peer: Peer, _: Arrived) -> bool:
    peer.silent()
    return False


def _unsolicited(peer: Peer, _: Arrived) -> bool:
    peer.sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    return _hang(peer, _)


def _wrong_accept(peer: Peer, _: Arrived) -> bool:
    key = accept_key(b"of another handshake")
    _switch(peer, b"websocket", key)
    return _hang(peer, _)


def _other_protocol(peer: Peer, arrived: Arrived) -> bool:
    _switch(peer, b"verify", accept_key(arrived.value("sec-websocket-key")))
    return _hang(peer, arrived)


def _switch(peer: Peer, protocol: bytes, accept: bytes) -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\nSec-WebSocket-Accept: " + accept
    peer.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n\r\n")


def _websocket(peer: Peer, arrived: Arrived) -> bool:
    """A WebSocket that says the credential, and gives back what it gets (RFC 6455)."""
    if not arrived.value("sec-websocket-key"):
        return ok(peer, arrived)
    _switch(peer, b"websocket", accept_key(arrived.value("sec-websocket-key")))
    peer.sock.sendall(_frame(b"you brought " + arrived.credential))
    while True:
        first, second = peer.take(2)
        size = second & 127
        if size == 126:
            size = int.from_bytes(peer.take(2), "big")
        mask = peer.take(4) if second & 128 else bytes(4)
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(peer.take(size)))
        peer.note(b"websocket: " + payload)
        if first & 15 == 8:  # close
            return False
        peer.sock.sendall(_frame(payload))


def _frame(payload: bytes) -> bytes:
    return b"\x81" + bytes([len(payload)]) + payload


ROUTES: Mapping[str, Route] = {
    "/echo": _echo,
    "/echo-base64": _echo_base64,
    "/echo-lines": _echo_lines,
    "/echo-gzip": _echo_gzip,
    "/echo-deflate": _echo_deflate,
    "/echo-split": _echo_split,
    "/echo-split-gzip": _echo_split_gzip,
    "/echo-trailer": _echo_trailer,
    "/echo-location": _echo_location,
    "/redirect-open": _redirect("open"),
    "/redirect-judged": _redirect("judged"),
    "/redirect-evil": _redirect("evil"),
    "/longer": _longer,
    "/shorter": _shorter,
    "/shorter-chunked": _shorter_chunked,
    "/two-lengths": _two_lengths,
    "/hash": _hash,
    "/large": _large,
    "/events": _events,
    "/hang": _hang,
    "/unsolicited-101": _unsolicited,
    "/wrong-accept": _wrong_accept,
    "/other-protocol": _other_protocol,
    "/websocket": _websocket,
}
