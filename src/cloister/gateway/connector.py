"""The gateway's end of the connector (`network/forward.py`): sockets of the sandbox's network namespace, on demand.

Rule 1: started at the first use, once; one that has died is started anew at the next.
Rule 2: every wait has a deadline, and a connector that misses it is given up: its late answer would be another's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloister.gateway.offload import Offload

if TYPE_CHECKING:
    import subprocess

OK, MESSAGE_BYTES = b"0", 16  # forward.py's, which would load ctypes
ANSWER_S = 5.0  # starting it included; some 30 ms

Started = tuple[socket.socket, "subprocess.Popen[bytes] | None"]


class Connector:
    """`start` is set once the sandbox's namespaces are known; it blocks."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._lock = asyncio.Lock()
        self._peer: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.start: Callable[[], Started] | None = None

    async def make(self, family: int) -> socket.socket:
        """A fresh, non-blocking TCP socket in the sandbox's namespace. OSError or TimeoutError."""
        async with self._lock:
            answered = False
            try:
                async with asyncio.timeout(ANSWER_S):
                    data, descriptors = await self._ask(await self._connected(), family)
                answered = bool(data)
            finally:
                if not answered:
                    self.close()
        if not data:
            raise OSError(errno.EIO, "the connector in the sandbox's namespace died")
        if data != OK:
            raise OSError(int(data), os.strerror(int(data)))
        return socket.socket(fileno=descriptors[0])

    def adopt(self, peer: socket.socket) -> None:
        """Use a connector that the runtime has started."""
        self.close()
        self._peer = peer
        self._peer.setblocking(False)

    def close(self) -> None:
        """End the connector. Idempotent."""
        peer, self._peer = self._peer, None
        process, self._process = self._process, None
        if peer is not None:
            peer.close()  # which ends it
        if process is not None:
            process.kill()
            process.wait()

    async def _connected(self) -> socket.socket:
        if self._peer is None:
            if self.start is None:
                raise OSError(errno.EOPNOTSUPP, "the sandbox's namespace is not known")
            peer, self._process = await self._offload.call(self.start)
            peer.setblocking(False)
            self._peer = peer
        return self._peer

    @staticmethod
    async def _ask(peer: socket.socket, family: int) -> tuple[bytes, list[int]]:
        await asyncio.get_running_loop().sock_sendall(peer, b"6" if family == socket.AF_INET6 else b"4")
        await _readable(peer)
        data, descriptors, _, _ = socket.recv_fds(peer, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        return data, descriptors


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())
