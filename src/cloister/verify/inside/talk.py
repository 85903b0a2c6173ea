"""What the probes have in common: how an attempt is told, and how they speak to the network."""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

CONFIG: dict[str, Any] = globals().get("CONFIG", {})  # Any: JSON, made by run.py
WAIT_S = 15.0  # what is refused is refused at once; on a busy machine what is granted may take a while
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
        self.notes: list[str] = []
        self.missing = ""

    def attack(self, what: str, attempt: Callable[..., object], *arguments: object) -> None:
        """It must fail: an attempt that returns has succeeded."""
        self.attacks.append(_tried(what, attempt, *arguments))

    def control(self, what: str, attempt: Callable[..., object], *arguments: object) -> None:
        """It must succeed, or the attacks show nothing."""
        self.controls.append(_tried(what, attempt, *arguments))

    def note(self, text: str) -> None:
        """What the claim does not reach here, and why."""
        self.notes.append(text[:TEXT_LIMIT])


class LiveProbe(Probe):
    """Of a user's live sandbox, where no origin is ours: the control is that the gateway answers."""

    def control(self, what: str, *_: object) -> None:
        """Whatever it would be elsewhere."""
        if not self.controls:
            self.controls.append(_tried("the gateway answers, instead of: " + what, gateway_answers))


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


# Network: what the probes speak.


def name(which: str) -> str:
    return str(CONFIG["names"][which])


def dial(address: str, port: int, *, wait_s: float = WAIT_S) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    found.settimeout(wait_s)
    found.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # else a request waits 40 ms behind a handshake
    found.connect((address, port))
    return found


def resolve(host: str, family: int = socket.AF_INET) -> str:
    found = socket.getaddrinfo(host, 443, family, socket.SOCK_STREAM)
    return str(found[0][4][0])


@functools.cache
def context(*, verify: bool, protocol: str = "") -> ssl.SSLContext:
    """Made once: reading the roots takes as long as ten requests. `protocol` is for ALPN."""
    found = ssl.create_default_context() if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    if protocol:
        found.set_alpn_protocols([protocol])
    return found


def secured(plain: socket.socket, server_name: str | None, *, verify: bool = True) -> ssl.SSLSocket:
    return context(verify=verify).wrap_socket(plain, server_hostname=server_name)


def closing(make: Callable[..., socket.socket], *arguments: object) -> str:
    make(*arguments).close()
    return "connected"


def connected(host: str, *, family: int = socket.AF_INET, wait_s: float = WAIT_S) -> ssl.SSLSocket:
    return secured(dial(resolve(host, family), 443, wait_s=wait_s), host)


def tunnel(target: str) -> socket.socket:
    """Through the explicit proxy. RefusedError if it answers anything but 200."""
    plain = dial("127.0.0.1", 3128)
    plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("utf-8", "surrogateescape"))
    status = answer(plain)[0]
    if status != 200:
        raise RefusedError(f"the proxy answered {status}")
    return plain


def gateway_answers() -> str:
    plain = dial("127.0.0.1", 3128)
    with plain:
        plain.sendall(b"CONNECT evil.invalid:443 HTTP/1.1\r\nHost: evil.invalid:443\r\n\r\n")
        return str(answer(plain)[0])


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


def post(host: str, path: str, headers: str, body: str | bytes) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n\r\n".encode() + data


def sized(host: str, path: str, body: bytes, *headers: str) -> bytes:
    """A POST whose body has its length."""
    return post(host, path, "\r\n".join([f"Content-Length: {len(body)}", *headers]), body)


def rest(stream: socket.socket) -> bytes:
    """All that comes until the stream's end, or its breaking off."""
    data = b""
    try:
        while part := stream.recv(65536):
            data += part
    except OSError:
        pass
    return data


def whole(host: str, request: bytes) -> bytes:
    """The answer to a request that says `Connection: close`."""
    with connected(host) as stream:
        stream.sendall(request)
        return rest(stream)


def status_of_head(stream: socket.socket) -> int:
    """The status of an answer, and not a byte more than its head is read: what follows may be another protocol's."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = stream.recv(1)
        if not part:
            raise EOFError("closed without an answer")
        head += part
    return int(head.split(b" ", 2)[1])


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


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(path)
        sock.sendall(b"attack-K-5")
    return "connected"
