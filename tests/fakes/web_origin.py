"""A web server over TLS for real clients: HTTP/1.1 and HTTP/2, answers from a function, each connection in a thread.

Rule 1: it listens before its constructor returns, and `__exit__` ends every connection.
Rule 2: a request is answered when all of it has come; a body of several parts goes out part by part.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from tests.fakes.origins import Authority

DEADLINE_S = 60.0
_PART_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as the origin saw it. Names of fields are in lower case; the last of equal ones counts."""

    protocol: str  # "http/1.1" or "h2"
    method: str
    path: str  # with the query
    host: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the origin says. A body of unknown length, part by part, if it is not `bytes`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""


Respond = Callable[[Request], Answer]


def seen_text(request: Request) -> Answer:
    """The default: what arrived, as a text."""
    return Answer(body=f"origin saw {request.method} {request.path}\n".encode())


class ResetError(OSError):
    """Raised by a body or by `respond`: the connection is reset."""


class WebOrigin:
    """An HTTPS origin on a loopback port with a certificate for `names`, which offers `protocols` by ALPN.

    Without an authority it speaks HTTP/1.1 in the clear. `between` is called between two reads of a body.
    """

    def __init__(
        self,
        authority: Authority | None,
        *names: str,
        respond: Respond = seen_text,
        protocols: tuple[str, ...] = ("http/1.1",),
        port: int = 0,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.seen: list[Request] = []
        self._respond = respond
        self.between = between
        self._context = None if authority is None else authority.context(names)
        if self._context is not None:
            self._context.set_alpn_protocols(list(protocols))
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept(2)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        return self._respond(request)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(DEADLINE_S)
        try:
            with self._wrapped(plain) as sock:
                self._sockets.append(sock)
                try:
                    if isinstance(sock, ssl.SSLSocket) and sock.selected_alpn_protocol() == "h2":
                        _Http2(self, sock).serve()
                    else:
                        _http1(self, sock)
                except ResetError:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (OSError, h2.exceptions.ProtocolError):
            return  # a client that goes away is part of the tests

    def _wrapped(self, plain: socket.socket) -> socket.socket:
        return plain if self._context is None else self._context.wrap_socket(plain, server_side=True)


def _http1(origin: WebOrigin, sock: socket.socket) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def any_method(self) -> None:
            request = Request(
                protocol="http/1.1",
                method=self.command,
                path=self.path,
                host=self.headers.get("Host", ""),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self._body(),
            )
            answer = origin.answer(request)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(answer.body, bytes):
                if answer.status >= 200 and answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in answer.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = any_method

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self._read(int(self.headers.get("Content-Length") or 0))
            body = bytearray()
            while size := self._size():
                body += self._read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                continue  # trailers
            return bytes(body)

        def _size(self) -> int:
            if not (line := self.rfile.readline()):
                raise ConnectionResetError("the client has gone within its body")
            return int(line, 16)

        def _read(self, size: int) -> bytes:
            data = bytearray()
            while len(data) < size:
                origin.between()
                part = self.rfile.read(min(size - len(data), _PART_BYTES))
                if not part:
                    raise ConnectionResetError("the client has gone within its body")
                data += part
            return bytes(data)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    Handler(sock, ("127.0.0.1", 0), None)  # type: ignore[arg-type]  # the server is only kept, never asked


@dataclass(eq=False, kw_only=True)
class _Sending:
    """An answer of which something has still to be sent."""

    stream: int
    parts: Iterator[bytes]
    part: bytes | memoryview = b""


class _Http2:
    """One HTTP/2 connection. Its answers take turns: one that nobody reads keeps no other waiting."""

    def __init__(self, origin: WebOrigin, sock: ssl.SSLSocket) -> None:
        self._origin = origin
        self._sock = sock
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._heads: dict[int, list[tuple[str, str]]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._complete: deque[int] = deque()
        self._sending: list[_Sending] = []
        self._ended = False

    def serve(self) -> None:
        self._http.initiate_connection()
        self._flush()
        while not self._ended:
            if not self._advance():
                self._receive()

    def _flush(self) -> None:
        self._sock.sendall(self._http.data_to_send())

    def _receive(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            self._ended = True
            return
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._heads[event.stream_id] = [(_text(name), _text(value)) for name, value in event.headers]
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._origin.between()
                self._bodies[event.stream_id] += event.data
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._complete.append(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self._ended = True
        self._flush()

    def _advance(self) -> bool:
        """Begin what was asked for, and send a frame of each answer; whether anything could be done."""
        moved = bool(self._complete)
        while self._complete:
            with contextlib.suppress(
                h2.exceptions.StreamClosedError
            ):  # the client has reset it, here and below
                self._begin(self._complete.popleft())
        for sending in list(self._sending):
            try:
                moved |= self._send(sending)
            except h2.exceptions.StreamClosedError:
                self._sending.remove(sending)
        return moved

    def _begin(self, stream: int) -> None:
        fields = dict(self._heads.pop(stream))
        answer = self._origin.answer(
            Request(
                protocol="h2",
                method=fields[":method"],
                path=fields[":path"],
                host=fields.get(":authority") or fields.get("host", ""),
                headers={name: value for name, value in fields.items() if not name.startswith(":")},
                body=bytes(self._bodies.pop(stream)),
            )
        )
        head = [(":status", str(answer.status))]
        head += [(name.lower(), value) for name, value in answer.headers.items()]
        parts = (answer.body,) if isinstance(answer.body, bytes) else answer.body
        if isinstance(answer.body, bytes):
            head.append(("content-length", str(len(answer.body))))
        self._http.send_headers(stream, head)
        self._flush()
        self._sending.append(_Sending(stream=stream, parts=iter(parts)))

    def _send(self, sending: _Sending) -> bool:
        """One frame; False if the client takes no more."""
        if not sending.part:
            part = next(sending.parts, None)
            if part is None:
                self._http.end_stream(sending.stream)
                self._flush()
                self._sending.remove(sending)
                return True
            sending.part = memoryview(part)
        window = self._http.local_flow_control_window(sending.stream)
        size = min(len(sending.part), window, self._http.max_outbound_frame_size)
        if size <= 0:
            return not sending.part
        self._http.send_data(sending.stream, bytes(sending.part[:size]))
        self._flush()
        sending.part = sending.part[size:]
        return True


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
