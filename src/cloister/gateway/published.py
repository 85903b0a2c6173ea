"""Published ports: a connection to this machine's loopback is joined with a server in the sandbox.

Rule 1: inbound only. What is dialled is the sandbox's own loopback, at the port that the plan publishes; nothing that
        comes from inside chooses anything, and no socket of ours listens there for it.
Rule 2: limits of its own: neither may a flood from outside stop the sandbox's connections, nor the other way round.
Rule 3: each connection is written down when it has ended, one that found no server as well; and there are none while
        the log cannot be written.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time

from cloister.audit.log import Event
from cloister.gateway.accept import Acceptor
from cloister.gateway.allowance import Allowance
from cloister.gateway.connector import Connector
from cloister.gateway.record import Record
from cloister.gateway.splice import Splice
from cloister.gateway.wire import SocketWire
from cloister.policy.published import GATEWAY_PORTS

CONNECT_S = 5.0
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Published:
    """All published ports of one sandbox."""

    def __init__(self, *, connector: Connector, record: Record, allowance: Allowance, limit: int) -> None:
        self._connector = connector
        self._record = record
        self._allowance = allowance
        self._joined: set[Splice] = set()
        self._acceptor = Acceptor(record=record, limit=limit, spliced=lambda: len(self._joined))

    def add(self, listener: socket.socket, port: int) -> None:
        """Serve a listening socket of the host's for `port` of the sandbox. ValueError for a port of the gateway's."""
        if port in GATEWAY_PORTS:  # the plan's compiler has refused it; once more where it would do harm
            listener.close()
            raise ValueError(f"port {port} of the sandbox is the gateway's")
        self._acceptor.add(listener, lambda wire: self._serve(wire, port))

    async def close(self) -> None:
        """Stop, and end the open connections."""
        try:
            await self._acceptor.close()
        finally:
            for splice in list(self._joined):
                splice.close()
            self._connector.close()

    async def _serve(self, wire: SocketWire, port: int) -> None:
        started = time.monotonic()
        if not self._record.healthy:
            self._refuse(wire, port, "the audit log cannot be written, and nothing passes unrecorded")
            return
        try:
            inside, address = await self._connect(port)
        except OSError as error:  # TimeoutError too
            self._refuse(wire, port, _words(error, port))
            return

        def ended(splice: Splice) -> None:
            self._joined.discard(splice)
            if splice.error is not None and not isinstance(splice.error, OSError):
                self._record.internal_error(splice.error, where="published port")
            self._record.event(
                Event(
                    kind="publish",
                    port=port,
                    protocol="tcp",
                    address=address,
                    sent_bytes=splice.received_bytes,  # by the sandbox
                    received_bytes=splice.sent_bytes,
                    duration_ms=int((time.monotonic() - started) * 1000),
                )
            )
            self._acceptor.released()

        joined = Splice(
            loop=asyncio.get_running_loop(),
            client=wire.detach(),
            upstream=inside,
            allowance=self._allowance,
            on_end=ended,
        )
        self._joined.add(joined)
        joined.start()

    async def _connect(self, port: int) -> tuple[socket.socket, str]:
        """A connection to the sandbox's server, over the first of its loopback addresses on which there is one."""
        failures: list[OSError] = []
        for family, address in _LOOPBACKS:
            try:
                return await self._connect_to(family, address, port), address
            except OSError as error:  # TimeoutError too
                failures.append(error)
        raise failures[0]

    async def _connect_to(self, family: int, address: str, port: int) -> socket.socket:
        sock = await self._connector.make(family)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            if sock.getsockname() == sock.getpeername():
                # Nobody listens, and the kernel took this very port for our end: it has connected with itself.
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock

    def _refuse(self, wire: SocketWire, port: int, reason: str) -> None:
        """Reset the connection: what nobody answers must not look like an empty answer."""
        wire.reset()
        self._record.event(Event(kind="publish", port=port, protocol="tcp", reason=reason))


def _words(error: OSError, port: int) -> str:
    if error.errno == errno.ECONNREFUSED:
        return f"nothing listens on port {port} in the sandbox"
    if isinstance(error, TimeoutError):
        return f"the server on port {port} in the sandbox does not answer"
    return f"port {port} in the sandbox cannot be reached: {error.strerror or error}"
