"""The half in the container: the host, as the gateway that runs here sees it (gateway/home.py).

Rule 1: it holds nothing of the host's but what came by message: the plan, root certificates, values that it asked for.
Rule 2: the end of the channel is the end of the session: the gateway hears it as if the session had died.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable
from contextlib import suppress

from cloister.errors import CredentialError
from cloister.gateway.upstream import Upstream
from cloister.outpost import streams
from cloister.outpost.channel import Channel
from cloister.outpost.frames import ORDERS_LIMIT_BYTES, Data, FrameError, Message
from cloister.outpost.log import FarLog
from cloister.secret import Secret
from cloister.secrets.source import DEADLINE_S, Value
from cloister.types import Credential

PACKET_BYTES = 1 << 16
_ANSWER_S = 10.0
_FETCH_S = DEADLINE_S + 10.0  # the host's own deadline comes first
_OWN_S = 60.0  # an address of the host's stays one for so long
_OWN_LIMIT = 1024


class Far:
    """Talks with the host over two descriptors. `control` is our end of the gateway's control socket.

    `orders` becomes done with the first message, or with None at an end before it.
    """

    def __init__(self, reading: int, writing: int, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._number = 0
        self._listeners: dict[int, socket.socket] = {}  # of published ports, by the sandbox's
        self._own: dict[str, tuple[float, bool]] = {}
        self.orders: asyncio.Future[Message | None] = self._loop.create_future()
        self.channel = Channel(
            reading,
            writing,
            limit_bytes=ORDERS_LIMIT_BYTES,
            hear=self._hear,
            ended=self._ended,
        )
        self._streams = streams.Streams(self.channel)
        self._log = FarLog(self.channel.send)
        self._loop.add_reader(control.fileno(), self._said)

    @property
    def log(self) -> FarLog:
        """As all below, `Home`'s."""
        return self._log

    async def fetch(self, credential: Credential) -> Value:
        """The value of a credential, from the host. CredentialError."""
        try:
            answer = await self._ask({"op": "fetch", "name": credential.name}, limit_s=_FETCH_S)
        except OSError:  # TimeoutError too
            raise CredentialError(
                f'credential "{credential.name}" cannot be had: the host does not answer'
            ) from None
        if "secret" not in answer:
            raise CredentialError(str(answer["brief"]), resolution=str(answer["resolution"]))
        first, *parts = (
            Secret(credential.name, base64.b64decode(str(text))) for text in _texts(answer["secret"])
        )
        expires_at = answer["expires_at"]
        return Value(
            secret=first,
            expires_at=expires_at if isinstance(expires_at, int | float) else None,
            parts=tuple(parts),
        )

    async def dial(self, host: str, port: int) -> Upstream:
        """A connection to where the user has pinned a name."""
        return await self._connected({"op": "dial", "host": host, "port": port})

    async def dial_proxy(self, host: str, port: int) -> Upstream:
        """A connection to the user's proxy."""
        return await self._connected({"op": "dial-proxy", "host": host, "port": port})

    async def is_own(self, address: str) -> bool:
        """Whether it is an address of the host."""
        now = self._loop.time()
        until, own = self._own.get(address, (0.0, False))
        if until < now:
            own = (await self._ask({"op": "is-own", "address": address}))["own"] is not False
            if len(self._own) >= _OWN_LIMIT:
                self._own.clear()
            self._own[address] = (now + _OWN_S, own)
        return own

    def close(self) -> None:
        """End everything; what has been sent may still be on its way (main.py waits for that)."""
        self._loop.remove_reader(self._control.fileno())
        self._streams.close()
        for listener in self._listeners.values():
            listener.close()

    def say(self, message: Message) -> None:
        """Tell the session something, as the gateway's control socket does."""
        self.channel.send({"op": "say", "message": message})

    async def _connected(self, asked: Message) -> Upstream:
        """A stream to somewhere: its end here. It is joined before it is asked for: an answer may come at once."""
        if len(self._streams) >= streams.STREAMS_LIMIT:
            raise OSError(24, "too many connections by way of the host")
        number = self._next()
        ours, theirs = streams.pair()
        self._streams.join(number, theirs)
        answer: Message | None = None
        try:
            answer = await self._ask({**asked, "stream": number})
            if isinstance(code := answer.get("errno"), int):
                raise OSError(code, str(answer.get("text", "")))
        except BaseException:
            self._streams.drop(number, tell=answer is None)
            ours.close()
            raise
        return Upstream(sock=ours, address=str(answer["address"]))

    async def _ask(self, message: Message, *, limit_s: float = _ANSWER_S) -> Message:
        number = self._next()
        future: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(limit_s):
                self.channel.send({**message, "number": number})
                return await future
        finally:
            del self._waiting[number]

    def _next(self) -> int:
        """Numbers of questions, and of streams that begin here: odd ones."""
        self._number += 2
        return self._number + 1

    def _said(self) -> None:
        """Pass on what the gateway tells the session."""
        try:
            packet = self._control.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self.say(json.loads(packet))
        else:
            self._loop.remove_reader(self._control.fileno())

    def _hear(self, frame: Message | Data) -> None:
        if isinstance(frame, Data):
            self._streams.hear(frame)
            return
        match frame.get("op"):
            case "orders" if not self.orders.done():
                self.orders.set_result(frame)
            case "hear":
                self._control.send(json.dumps(frame["message"]).encode(), socket.MSG_DONTWAIT)
            case "answer":
                future = self._waiting.get(_number(frame, "number"))
                if future is not None and not future.done():
                    future.set_result(frame)
            case "confirmed":
                code = frame.get("errno")
                self._log.confirmed(_number(frame, "number"), code if isinstance(code, int) else None)
            case "open":
                self._open(_number(frame, "stream"), _number(frame, "port"))
            case "credit" | "done" | "reset":
                self._streams.hear(frame)
            case operation:
                raise FrameError(f"the host said {operation!r:.40}")

    def _open(self, number: int, port: int) -> None:
        """The host has accepted a connection for a published port: hand it to the gateway, which knows what to do."""
        if port not in self._listeners:
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self._listeners[port] = listener
            entry = {"kind": "publish", "family": 4, "address": "", "port": port}
            text = json.dumps({"op": "listen", "sockets": [entry]}).encode()
            socket.send_fds(self._control, [text], [listener.fileno()], socket.MSG_DONTWAIT)
        try:
            sock = socket.create_connection(self._listeners[port].getsockname(), timeout=1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.channel.send({"op": "reset", "stream": number})
            return
        self._streams.join(number, sock)

    def _ended(self, _: str) -> None:
        if not self.orders.done():
            self.orders.set_result(None)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(OSError(103, "the host has gone"))
        self._streams.close()
        with suppress(OSError):
            self._loop.remove_reader(self._control.fileno())
            self._control.shutdown(socket.SHUT_RDWR)


def in_thread(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call something on the loop, from another thread; it may have ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def _number(message: Message, name: str) -> int:
    found = message.get(name)
    if not isinstance(found, int) or found < 0:
        raise FrameError(f"{name!r} is no number")
    return found


def _texts(value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise OSError(71, "the host's answer is not understood")
    return value
