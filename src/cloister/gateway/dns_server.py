"""Read DNS questions from the sandbox's sockets and send the resolver's answers, over UDP and TCP.

Rule 1: a UDP answer leaves from the address that was asked (IP_PKTINFO), or stub resolvers drop it.
Rule 2: a name whose rules need sockets on demand is answered only when they listen.
Rule 3: a TCP client gets QUERIES_LIMIT questions, each within a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine

from cloister.gateway.on_demand import Binder
from cloister.gateway.resolver import Answer, Resolver
from cloister.gateway.wire import SocketWire, take

MESSAGE_LIMIT_BYTES = 4096
QUERIES_LIMIT = 100
TCP_DEADLINE_S = 10.0
_DATAGRAMS_A_TURN = 64
_PENDING_LIMIT = 256  # questions that wait for sockets
_IP_PKTINFO = 8  # Python 3.11 does not name it

Ancillary = list[tuple[int, int, bytes]]
Peer = tuple[object, ...]


class DnsServer:
    """Serves the resolver on sockets that others have bound."""

    def __init__(self, resolver: Resolver, binder: Binder) -> None:
        self._resolver = resolver
        self._binder = binder
        self._pending: set[asyncio.Task[None]] = set()

    def add(self, sock: socket.socket) -> None:
        """Serve a UDP socket that has IP_PKTINFO or IPV6_RECVPKTINFO set."""
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable, sock)

    async def serve_tcp(self, wire: SocketWire) -> None:
        """Serve one TCP connection (RFC 7766)."""
        for _ in range(QUERIES_LIMIT):
            async with asyncio.timeout(TCP_DEADLINE_S):
                if not await _fill(wire, 2):
                    return
                size = int.from_bytes(take(wire, 2), "big")
                if not 12 <= size <= MESSAGE_LIMIT_BYTES or not await _fill(wire, size):
                    return
                answer = self._resolver.judge(take(wire, size))
                if answer is None:
                    return
                data = await self._when_bound(answer)
                await wire.send(len(data).to_bytes(2, "big") + data)

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                untrusted, ancillary, flags, peer = sock.recvmsg(MESSAGE_LIMIT_BYTES, 256)
            except OSError:
                return  # nothing more; or an error of an earlier answer, which is now consumed
            if flags & socket.MSG_TRUNC:
                continue
            answer = self._resolver.judge(untrusted)
            if answer is None:
                continue
            source = _source(ancillary)
            if answer.host is None or self._binder.is_bound(answer.host):
                _send(sock, answer.data, source, peer)
            elif len(self._pending) < _PENDING_LIMIT:
                self._spawn(self._send_when_bound(sock, answer, source, peer))

    async def _send_when_bound(
        self,
        sock: socket.socket,
        answer: Answer,
        source: list[tuple[int, int, bytes]],
        peer: tuple[object, ...],
    ) -> None:
        _send(sock, await self._when_bound(answer), source, peer)

    async def _when_bound(self, answer: Answer) -> bytes:
        if answer.host is not None:
            try:
                await self._binder.bind(answer.host, answer.index)
            except OSError as error:
                reason = f"its ports could not be bound in the sandbox: {error.strerror or error}"
                return self._resolver.failed(answer, reason)
        return answer.data

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)


def _source(ancillary: Ancillary) -> Ancillary:
    """The control message that makes an answer leave from where its question went (ip(7), ipv6(7))."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            asked = data[8:12]  # struct in_pktinfo: interface, local address, address in the header
            return [(level, kind, bytes(4) + asked + bytes(4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data[:16] + bytes(4))]
    return []


def _send(
    sock: socket.socket, data: bytes, source: list[tuple[int, int, bytes]], peer: tuple[object, ...]
) -> None:
    with contextlib.suppress(OSError):  # UDP: the client asks again
        sock.sendmsg([data], source, 0, peer)


async def _fill(wire: SocketWire, size: int) -> bool:
    while len(wire.buffer) < size:
        if not await wire.more():
            return False
    return True
