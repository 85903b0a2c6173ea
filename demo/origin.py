"""The outside world of `make demo`: an API that wants a token, and a git server, over TLS, on loopback.

Usage: origin.py DIRECTORY. It writes DIRECTORY/ca.pem, then its port to the FIFO DIRECTORY/port; it serves
DIRECTORY/git/*.git, and wants the token that is in its environment (DEMO_TOKEN).
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMES = ("api.demo.example", "git.demo.example")
ROOT = Path(sys.argv[1])
TOKEN = os.environ["DEMO_TOKEN"]
ALLOWED = {f"Bearer {TOKEN}", "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()}


class Handler(BaseHTTPRequestHandler):
    """Both hosts."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if not self.headers.get("Transfer-Encoding") else self.chunks()
        if self.headers.get("Authorization") not in ALLOWED:
            self.say(401, "application/json", b'{"error": "no valid token"}\n')
        elif self.headers["Host"].startswith("git."):
            self.git(body)
        else:
            text = json.dumps({"authorized": True, "you sent": self.headers["Authorization"]})
            self.say(200, "application/json", f"{text}\n".encode())

    do_GET = do_POST = answer

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def git(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(ROOT / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "demo",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.say(
            int(fields.get("Status", "200").split()[0]), fields.get("Content-Type", "text/plain"), content
        )

    def say(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
        return


def certificate() -> bytes:
    """A certificate for NAMES that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the demo's outside world")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (ROOT / "ca.pem").write_bytes(pem)
    return pem + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    both = ROOT / "both.pem"
    both.write_bytes(certificate())
    context.load_cert_chain(both)
    both.unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    (ROOT / "port").write_text(f"{server.server_address[1]}\n")
    server.serve_forever()


main()
