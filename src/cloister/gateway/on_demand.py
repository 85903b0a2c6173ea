"""Bind sockets for names that only a pattern covers, when the sandbox first asks for them.

The stand-in of an exact name is known at start, and the plumber binds its ports then. For
`*.example.com:8443` the address is known only when DNS hands it out; a helper then binds it inside the
sandbox's namespace.

Rule 1: single flight a name, and the DNS answer waits for it: a client that has the address can connect.
Rule 2: a failure is told and not remembered: the next question tries again.
Rule 3: bounded: the sandbox can invent names without end, and each takes listening sockets for good.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from cloister.gateway import judge
from cloister.gateway.offload import Offload
from cloister.network import standin
from cloister.types import Host, Policy

SOCKETS_LIMIT = 1024

Bind = Callable[
    [list[tuple[str, int]]], list[socket.socket]
]  # blocking: `network.enter.bind_later`, namespaces given


class Binder:
    """Knows which names have all their sockets. `bind_in_namespace` is set once the namespace is known."""

    def __init__(
        self,
        *,
        policy: Policy,
        bound: dict[Host, frozenset[int]],
        offload: Offload,
        listen: Callable[[socket.socket], None],
        sockets_limit: int = SOCKETS_LIMIT,
    ) -> None:
        self._policy = policy
        self._bound = dict(bound)
        self._offload = offload
        self._listen = listen
        self._sockets_left = sockets_limit
        self._flights: dict[Host, asyncio.Task[None]] = {}
        self.bind_in_namespace: Bind | None = None
        self.v6 = True

    def is_bound(self, host: Host) -> bool:
        """Whether every port that the policy opens on this name has its sockets."""
        return not self._missing(host)

    async def bind(self, host: Host, index: int) -> None:
        """Make it so. OSError if that fails."""
        if self.is_bound(host):
            return
        flight = self._flights.get(host)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._bind(host, index))
            self._flights[host] = flight
            flight.add_done_callback(lambda _: self._flights.pop(host, None))
        await asyncio.shield(flight)

    async def _bind(self, host: Host, index: int) -> None:
        bind = self.bind_in_namespace
        if bind is None:
            raise OSError(95, "the sandbox's namespace is not known")
        ports = self._missing(host)
        addresses = [standin.v4(index), standin.v6(index)] if self.v6 else [standin.v4(index)]
        wanted = [(address, port) for address in addresses for port in sorted(ports)]
        if len(wanted) > self._sockets_left:
            raise OSError(errno.EMFILE, "too many names with ports of their own were asked for")
        self._sockets_left -= len(wanted)
        try:
            listeners = await self._offload.call(lambda: bind(wanted))
        except BaseException:
            self._sockets_left += len(wanted)
            raise
        for listener in listeners:
            self._listen(listener)
        self._bound[host] = self._bound.get(host, frozenset()) | ports

    def _missing(self, host: Host) -> frozenset[int]:
        return judge.ports_on_demand(self._policy, host) - self._bound.get(host, frozenset())
