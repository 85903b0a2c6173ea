"""What stands outside of the sandbox and writes down what arrives: an origin, and listeners that nobody may reach.

Rule 1: everything listens on loopback alone (or where `make compare` says, in a network namespace of its own), and is
        bound before a process is forked; `start` makes the threads.
Rule 2: what is received is kept, up to a limit, with the name that it came for. `origin.py` says what is received.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cloister.gateway.authority import Authority
from cloister.verify import origin, overlay
from cloister.verify.overlay import NAMES

_LOOPBACK = "127.0.0.1"
_KEPT_BYTES = 8 << 20
_IDLE_S = 30.0
_HELLO = 0x16  # a TLS record of type handshake (RFC 8446 section 5.1)
_BACKLOG = 256
_EXPIRED_AGO_S = 30 * 86400  # a leaf lives for a week


class Witnesses:
    """All of them. `seen` is every byte that arrived, decrypted where it was TLS to the origin; `arrived` has it in
    pieces, each with the name that it came for ("" where there was none).
    """

    def __init__(
        self, *, address: str = _LOOPBACK, https_port: int = 0, http_port: int = 0, other_port: int = 0
    ) -> None:
        self._lock = threading.Lock()
        self._arrived: list[tuple[str, bytes]] = []
        self._kept_bytes = 0
        self._closed = False
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.https = _listener(family, (address, https_port))
        # The same port elsewhere on the loopback: where a name that was resolved anew would lead (NAME-5).
        elsewhere = (overlay.OTHER_LOOPBACK, self.https.getsockname()[1])
        self._elsewhere = [_listener(family, elsewhere)] if address == _LOOPBACK else []
        self.http = _listener(family, (address, http_port))
        self.tcp = _listener(family, (address, other_port))
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.udp.bind((address, other_port))
        self.abstract_name = f"cloister-verify-{os.urandom(6).hex()}"
        self.abstract = _listener(socket.AF_UNIX, f"\0{self.abstract_name}")
        identities = _Identities()
        self.ca_pem = identities.ca_pem
        self._contexts = {name: identities.context(which) for which, name in NAMES.items()}
        self._nameless = identities.context("open")
        self._nameless.sni_callback = self._choose

    @property
    def arrived(self) -> tuple[tuple[str, bytes], ...]:
        with self._lock:
            return tuple(self._arrived)

    @property
    def seen(self) -> bytes:
        return b"\n".join(data for _, data in self.arrived)

    def start(self) -> None:
        """Begin to listen."""
        for listener, serve in (
            (self.https, self._serve_tls),
            *((one, self._serve_tls) for one in self._elsewhere),
            (self.http, self._serve_http),
            (self.tcp, self._serve_silent),
            (self.abstract, self._serve_silent),
        ):
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()
        threading.Thread(target=self._datagrams, daemon=True).start()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._closed = True
        for one in (self.https, *self._elsewhere, self.http, self.tcp, self.udp, self.abstract):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _note(self, data: bytes, name: str = "") -> None:
        with self._lock:
            if self._kept_bytes < _KEPT_BYTES:
                self._kept_bytes += len(data)
                self._arrived.append((name, data))

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
        peeked = connection.recv(65536, socket.MSG_PEEK)
        if peeked[:1] != bytes([_HELLO]):
            self._serve_silent(connection)
            return
        self._note(peeked)  # a hello is in the clear, and may be all that comes
        with self._nameless.wrap_socket(connection, server_side=True) as secured:
            name = next(
                (name for name, one in self._contexts.items() if one is secured.context), NAMES["open"]
            )
            origin.serve(secured, lambda data: self._note(data, name))

    def _choose(self, wrapped: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name in self._contexts:
            wrapped.context = self._contexts[name]

    def _serve_http(self, connection: socket.socket) -> None:
        origin.serve(connection, lambda data: self._note(data, NAMES["plain"]))

    def _datagrams(self) -> None:
        while not self._closed:
            try:
                self._note(self.udp.recv(65536))
            except OSError:
                return


class _Identities:
    """The certificates of the origin's names: good ones, and those of the impostors."""

    def __init__(self) -> None:
        self._back_s = 0.0
        self._authority = Authority(f"verify {os.urandom(4).hex()}", clock=lambda: time.time() - self._back_s)
        self._stranger = Authority("verify, trusted by nobody")
        self.ca_pem = self._authority.pem

    def context(self, which: str) -> ssl.SSLContext:
        """A server's context for that name, as overlay.py calls it."""
        authority = self._stranger if which == "selfsigned" else self._authority
        self._back_s = _EXPIRED_AGO_S if which == "expired" else 0.0
        leaf = authority.leaf(NAMES["evil" if which == "misnamed" else which])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        descriptor = os.memfd_create("cloister-verify", os.MFD_CLOEXEC)  # a key is never in a named file
        with open(descriptor, "wb") as file:
            file.write(leaf.certificate + leaf.private_key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return context


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
    found.listen(_BACKLOG)
    return found
