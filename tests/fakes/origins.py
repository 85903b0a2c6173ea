"""Local origins that stand in for the Internet: they record what they saw."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import tempfile
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority of the tests."""

    def __init__(self) -> None:
        self._key: ec.EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloister test authority")])
        builder = _builder(name, name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def stored(self) -> tuple[str, str]:
        """Its key and certificate, for another process of the tests."""
        return _key_pem(self._key).decode(), self.pem

    @classmethod
    def of_stored(cls, key: str, certificate: str) -> Self:
        """The same authority as `stored` told of."""
        made = cls()
        loaded = serialization.load_pem_private_key(key.encode(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError("not a key of elliptic curves")
        made._key = loaded
        made._certificate = x509.load_pem_x509_certificate(certificate.encode())
        made.pem = certificate
        return made

    def context(self, names: tuple[str, ...]) -> ssl.SSLContext:
        """A server context with a certificate for `names`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = (
            _builder(subject, self._certificate.subject, key.public_key())
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
    )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as the origin saw it."""

    method: str
    path: str
    host: str
    headers: dict[str, str]
    body: bytes


class HttpsOrigin:
    """An HTTP/1.1 origin; over TLS if there is an authority. Answers with what it saw.

    `/bytes/N` answers N bytes, `/hang` never answers until the origin is closed, anything else echoes.
    """

    def __init__(self, authority: Authority | None, *, names: tuple[str, ...]) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._closing = threading.Event()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def setup(self) -> None:
                origin.connections += 1
                super().setup()

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                origin.seen.append(
                    Seen(
                        method=self.command,
                        path=self.path,
                        host=self.headers.get("Host", ""),
                        headers={key.lower(): value for key, value in self.headers.items()},
                        body=body,
                    )
                )
                if self.path == "/hang":
                    origin._closing.wait(60)
                    return
                count = int(self.path.split("/")[2]) if self.path.startswith("/bytes/") else None
                answer = (
                    b"x" * count if count is not None else f"origin saw {self.command} {self.path}\n".encode()
                )
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

            def log_message(self, format: str, *arguments: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, request: object, client_address: object) -> None:
                return  # a client that goes away is part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        if authority is not None:
            self._server.socket = authority.context(names).wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


class TcpOrigin:
    """Accepts connections on `port` (0: a free one), each served by `talk` in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        raise NotImplementedError


class LineOrigin(TcpOrigin):
    """Greets first, then answers each line with its reverse; `quit` closes."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.lines: list[str] = []

    def talk(self, connection: socket.socket) -> None:
        # A client that goes away is part of the tests.
        with contextlib.suppress(OSError), connection, connection.makefile("rwb", buffering=0) as file:
            file.write(b"hello from the line origin\n")
            for line in file:
                text = line.decode().strip()
                self.lines.append(text)
                if text == "quit":
                    return
                file.write(text[::-1].encode() + b"\n")


def free_port() -> int:
    """A port of loopback on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SilentOrigin(TcpOrigin):
    """Takes every byte of every connection and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self._received = b""
        self._more = threading.Condition()

    def wait_for(self, part: bytes, count: int, deadline_s: float = 30.0) -> None:
        """Block until `part` has come `count` times. TimeoutError if it does not."""
        with self._more:
            if not self._more.wait_for(lambda: self._received.count(part) >= count, deadline_s):
                raise TimeoutError(f"{part!r} did not come {count} times: {self._received!r}")

    def talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionResetError):  # how the gateway ends what was cut
            while data := connection.recv(65536):
                with self._more:
                    self._received += data
                    self._more.notify_all()
