"""The other side of an HTTP/2 connection: `h2` as a client or server, and frames written by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
from hpack import Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from cloister.gateway.http import h2_server
from cloister.gateway.services import Deadlines
from cloister.gateway.wire import SocketWire
from cloister.messages import RequestHead

DEADLINE_S = 10.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NAME = b"api.example.com"

Fields = list[tuple[bytes, bytes]]


def fields(path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    """A request's headers."""
    return [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", NAME),
        (b":path", path),
        *more,
    ]


def head(path: str = "/", *, method: str = "GET", length: int | None = 0, **more: object) -> RequestHead:
    """The same, as a value."""
    return RequestHead(
        method=method,
        untrusted_authority=NAME.decode(),
        path=path,
        length=length,
        **more,  # type: ignore[arg-type]  # RequestHead says what there is
    )


class Peer:
    """One side, on a socket. `events` are all that came; `ended` that the stream did."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        config = h2.config.H2Configuration(
            client_side=client, header_encoding=None, validate_outbound_headers=False
        )
        self.protocol = h2.connection.H2Connection(config)
        self.events: list[h2.events.Event] = []
        self.ended = False
        self.acknowledges = True

    async def start(self, settings: dict[int, int] | None = None) -> None:
        self.protocol.initiate_connection()
        if settings:
            self.protocol.update_settings(dict(settings))
        await self.flush()

    async def flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self.protocol.data_to_send())

    async def raw(self, *frames: Frame | bytes) -> None:
        """Bytes as they are."""
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def step(self) -> bool:
        """Read once; False at the end."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = True
            return False
        for event in self.protocol.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and self.acknowledges:
                self.protocol.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id or 0
                )
        await self.flush()
        return True

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not done() and await self.step():
                pass
        if not done():
            raise AssertionError(f"ended before that: {self.events}")

    async def until_event(self, kind: type[h2.events.Event], stream_id: int | None = None) -> h2.events.Event:
        """Read until such an event has come; all that match are then in `events`."""

        def found() -> list[h2.events.Event]:
            return [
                event
                for event in self.events
                if isinstance(event, kind) and (stream_id is None or event.stream_id == stream_id)  # type: ignore[attr-defined]  # who gives one asks for events that have it
            ]

        await self.until(lambda: bool(found()))
        return found()[0]

    def status(self, stream_id: int) -> int | None:
        for event in self.events:
            if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream_id:
                return int(dict(event.headers or [])[b":status"])
        return None

    def body(self, stream_id: int) -> bytes:
        return b"".join(
            event.data or b""
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream_id
        )

    async def ask(self, stream_id: int, request: Fields | None = None, body: bytes | None = None) -> None:
        """A request as a whole."""
        self.protocol.send_headers(stream_id, request or fields(), end_stream=body is None)
        if body is not None:
            self.protocol.send_data(stream_id, body, end_stream=True)
        await self.flush()


class RawPeer:
    """A client that frames by hand, and keeps the frames that come."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.encoder = Encoder()
        self.frames: list[Frame] = []
        self._data = b""

    async def send(self, *frames: Frame | bytes) -> None:
        """Write, as far as the other side takes it."""
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except OSError:
            return

    def request(self, stream_id: int, request: Fields | None = None, *, ended: bool = True) -> HeadersFrame:
        block = self.encoder.encode(request or fields())
        flags = ["END_HEADERS", *(["END_STREAM"] if ended else [])]
        return HeadersFrame(stream_id, data=block, flags=flags)

    async def read_to_end(self) -> None:
        """All frames until the connection ends."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
                except ConnectionResetError:
                    return
                if not data:
                    return
                self._take(data)

    async def read_until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not done():
                data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
                if not data:
                    raise AssertionError(f"ended before that: {self.frames}")
                self._take(data)

    def _take(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._data[:9]))
            if len(self._data) < 9 + length:
                return
            frame.parse_body(memoryview(self._data[9 : 9 + length]))
            self.frames.append(frame)
            self._data = self._data[9 + length :]

    @property
    def goaway(self) -> int | None:
        """The error code of the last GOAWAY."""
        codes = [frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)]
        return codes[-1] if codes else None

    def reset_code(self, stream_id: int) -> int | None:
        for frame in self.frames:
            if isinstance(frame, RstStreamFrame) and frame.stream_id == stream_id:
                return frame.error_code
        return None


START = (PREFACE, SettingsFrame(0))


class Served:
    """`h2_server.serve` on one end of a socket pair; `peer_sock` is the other.

    A handler that fails has the connection's task fail: `await served.end()` raises it.
    """

    def __init__(
        self,
        handler: Callable[[h2_server.H2Downstream], Awaitable[None]],
        *,
        deadlines: Deadlines | None = None,
    ) -> None:
        ours, self.peer_sock = socket.socketpair()
        ours.setblocking(False)
        self.wire = SocketWire(ours)
        self.refused: list[str] = []
        self.task = asyncio.create_task(self._serve(handler, deadlines or Deadlines()))

    async def _serve(
        self, handler: Callable[[h2_server.H2Downstream], Awaitable[None]], deadlines: Deadlines
    ) -> None:
        try:
            await h2_server.serve(
                self.wire,
                handler,  # type: ignore[arg-type]  # the tests look at more than a Downstream has
                deadlines=deadlines,
                on_bad_request=self._bad,
            )
        finally:
            self.wire.close()

    async def _bad(self, reason: str, status: int) -> bytes:
        self.refused.append(reason)
        page = b"no: " + reason.encode()
        return (
            b"HTTP/1.1 %d Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (status, len(page), page)
        )

    async def end(self) -> None:
        """Close the client's side; the server must end."""
        self.peer_sock.close()
        async with asyncio.timeout(DEADLINE_S):
            await self.task


def settings(**values: int) -> dict[int, int]:
    """`settings(INITIAL_WINDOW_SIZE=10)`."""
    return {h2.settings.SettingCodes[name]: value for name, value in values.items()}
