"""What stands outside of the sandbox and writes down what arrives: an origin, and listeners that nobody may reach.

Rule 1: everything listens on loopback alone (or where `make compare` says, in a network namespace of its own), and is
        bound before a process is forked; `start` makes the threads.
Rule 2: what is received is kept, up to a limit; nothing of it is interpreted but what an HTTP answer needs.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cloister.gateway.authority import Authority
from cloister.verify.overlay import NAMES

_KEPT_BYTES = 8 << 20
_IDLE_S = 30.0
_HELLO = 0x16  # a TLS record of type handshake (RFC 8446 section 5.1)


class Witnesses:
    """All of them. `seen` is every byte that arrived, decrypted where it was TLS to the origin."""

    def __init__(
        self, *, address: str = "127.0.0.1", https_port: int = 0, http_port: int = 0, other_port: int = 0
    ) -> None:
        self._lock = threading.Lock()
        self._seen = bytearray()
        self._closed = False
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.https = _listener(family, (address, https_port))
        self.http = _listener(family, (address, http_port))
        self.tcp = _listener(family, (address, other_port))
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.udp.bind((address, other_port))
        self.abstract_name = f"cloister-verify-{os.urandom(6).hex()}"
        self.abstract = _listener(socket.AF_UNIX, f"\0{self.abstract_name}")
        authority = Authority(f"verify {os.urandom(4).hex()}")
        self.ca_pem = authority.pem
        self._contexts = {name: self._context(authority, name) for name in NAMES.values()}
        self._nameless = self._context(authority, NAMES["open"])
        self._nameless.sni_callback = self._choose

    @property
    def seen(self) -> bytes:
        with self._lock:
            return bytes(self._seen)

    def start(self) -> None:
        """Begin to listen."""
        for listener, serve in (
            (self.https, self._serve_tls),
            (self.http, self._serve_http),
            (self.tcp, self._serve_silent),
            (self.abstract, self._serve_silent),
        ):
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()
        threading.Thread(target=self._datagrams, daemon=True).start()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._closed = True
        for one in (self.https, self.http, self.tcp, self.udp, self.abstract):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _note(self, data: bytes) -> None:
        with self._lock:
            if len(self._seen) < _KEPT_BYTES:
                self._seen += data + b"\n"

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while not self._closed:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, serve), daemon=True).start()

    def _serve(self, connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        connection.settimeout(_IDLE_S)
        with connection, suppress(OSError, ValueError):
            serve(connection)

    def _serve_silent(self, connection: socket.socket) -> None:
        while data := connection.recv(65536):
            self._note(data)

    def _serve_tls(self, connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK)[:1] != bytes([_HELLO]):
            self._serve_silent(connection)
            return

        peeked = connection.recv(65536, socket.MSG_PEEK)
        try:
            with self._nameless.wrap_socket(connection, server_side=True) as secured:
                self._serve_http(secured)
        except ssl.SSLError:
            self._note(peeked)  # it was no TLS after all

    def _serve_http(self, connection: socket.socket) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                self._note(part)
                data += part
            head, _, data = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            while length and len(data) < int(length.group(1)):
                part = connection.recv(65536)
                if not part:
                    return
                self._note(part)
                data += part
            data = data[int(length.group(1)) :] if length else data
            connection.sendall(_answer(head))

    def _datagrams(self) -> None:
        while not self._closed:
            try:
                self._note(self.udp.recv(65536))
            except OSError:
                return

    def _choose(self, wrapped: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name in self._contexts:
            wrapped.context = self._contexts[name]

    def _context(self, authority: Authority, name: str) -> ssl.SSLContext:
        leaf = authority.leaf(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        descriptor = os.memfd_create("cloister-verify", os.MFD_CLOEXEC)  # a key is never in a named file
        with open(descriptor, "wb") as file:
            file.write(leaf.certificate + leaf.private_key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return context


def _answer(head: bytes) -> bytes:
    """A small answer; on `/echo` with what stood in Authorization."""
    target = head.split(b" ", 2)[1] if head.count(b" ") > 1 else b"/"
    found = re.search(rb"(?i)\r\nauthorization: *([^\r\n]*)", head)
    value = found.group(1) if found else b""
    body, extra = b"ok\n", b""
    if target == b"/echo":
        body, extra = b"you sent " + value + b"\n", b"X-Echo: " + value + b"\r\n"
    elif target == b"/echo-base64":
        body = base64.b64encode(value.rpartition(b" ")[2]) + b"\n"
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%bContent-Length: %d\r\n\r\n%b" % (
        extra,
        len(body),
        body,
    )


def wait_for(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Whether it became true in time. Witnesses write down what has arrived, a moment after it was sent."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _listener(family: int, address: tuple[str, int] | str) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    found.bind(address)
    found.listen(64)
    return found
