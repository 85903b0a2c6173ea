"""Upstreams that record what they saw: plain TCP, TLS and HTTP, each connection in a thread.

Rule 1: an origin listens before its constructor returns, and `close` ends everything that it started.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable

from cloister.gateway.authority import Authority

Serve = Callable[["Seen", socket.socket], None]


class Seen:
    """What one connection of an origin received."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = threading.Event()  # the client sent its end of stream
        self.error: Exception | None = None


class Origin:
    """A server on a loopback port. `serve` handles each accepted socket; the default echoes."""

    def __init__(
        self,
        serve: Serve | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._serve = serve or echo
        self._tls = tls
        self.seen: list[Seen] = []
        self.accepted = threading.Semaphore(0)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=1024)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept(2)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            seen = Seen()
            self.seen.append(seen)
            self._sockets.append(sock)
            self.accepted.release()
            threading.Thread(target=self._run, args=(seen, sock), daemon=True).start()

    def _run(self, seen: Seen, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            self._serve(seen, sock)
        except (OSError, ValueError) as error:
            seen.error = error
            if isinstance(error, ConnectionResetError):
                seen.ended.set()
        finally:
            sock.close()


def echo(seen: Seen, sock: socket.socket) -> None:
    """Send back what comes; pass on a half-close."""
    while data := sock.recv(65536):
        seen.data += data
        sock.sendall(data)
    seen.ended.set()
    sock.shutdown(socket.SHUT_WR)


def swallow(seen: Seen, sock: socket.socket) -> None:
    """Read everything, answer nothing."""
    while data := sock.recv(65536):
        seen.data += data
    seen.ended.set()


def respond(*responses: bytes) -> Serve:
    """Answer the n-th request with the n-th response, then close. Request bodies: Content-Length only."""

    def serve(seen: Seen, sock: socket.socket) -> None:
        buffer = b""
        for response in responses:
            while b"\r\n\r\n" not in buffer:
                data = sock.recv(65536)
                if not data:
                    seen.ended.set()
                    return
                seen.data += data
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            while len(buffer) < length:
                data = sock.recv(65536)
                if not data:
                    return
                seen.data += data
                buffer += data
            buffer = buffer[length:]
            sock.sendall(response)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            seen.data += data
        seen.ended.set()

    return serve


def server_context(authority: Authority, name: str) -> ssl.SSLContext:
    """A TLS server's context with a certificate of `authority` for `name`."""
    leaf = authority.leaf(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(leaf.private_key + leaf.certificate)
        file.flush()
        context.load_cert_chain(file.name)
    return context
