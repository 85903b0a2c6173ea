"""Connections to upstreams, used again while they are good.

Rule 1: the certificate is verified for the host that was judged; a connection belongs to that host and port alone.
Rule 2: an idle connection is looked at before it is used again, and closed after IDLE_S.
Rule 3: every failure is an `UpstreamError` in one sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloister.gateway.http.h1_client import H1Upstream
from cloister.gateway.upstream import UpstreamError
from cloister.gateway.wire import SocketWire

if TYPE_CHECKING:
    import ssl

    from cloister.gateway.http.h2_client import H2Connection
    from cloister.gateway.http.streams import Upstream
    from cloister.gateway.offload import Offload
    from cloister.gateway.upstream import Dialler
    from cloister.gateway.wire import Wire
    from cloister.types import Host, Rule

IDLE_S = 60.0
IDLE_LIMIT = 128  # connections that wait, over all hosts
HANDSHAKE_S = 15.0

_Key = tuple[str, int, bool, bool]  # host, port, TLS, whether HTTP/2 was offered


class Pool:
    """One for the gateway's life."""

    def __init__(
        self, dialler: Dialler, *, offload: Offload, roots: str | None, further_roots: Sequence[str]
    ) -> None:
        self._dialler = dialler
        self._offload = offload
        self._roots = roots
        self._further = further_roots
        self._contexts: dict[bool, asyncio.Task[ssl.SSLContext]] = {}
        self._idle: dict[_Key, list[tuple[float, Wire, str]]] = {}
        self._shared: dict[_Key, H2Connection] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def open(
        self, host: Host, port: int, rule: Rule, *, tls: bool, h2: bool, fresh: bool = False
    ) -> Upstream:
        """A stream for one request. With `h2`, over HTTP/2 if the upstream speaks it; `fresh`: on a new connection."""
        key = (host.name, port, tls, h2)
        if not fresh:
            shared = self._shared.get(key)
            if shared is not None and shared.usable:
                return shared.open()
            while (waiting := self._take(key)) is not None:
                wire, address = waiting
                if not wire.stale():
                    return self._h1(key, wire, address, reused=True)
                wire.close()
        upstream = await self._dialler.dial(host, port, rule)
        plain = SocketWire(upstream.sock)
        if not tls:
            return self._h1(key, plain, upstream.address, reused=False)
        try:
            return await self._over_tls(key, host, plain, upstream.address)
        except BaseException:
            plain.close()
            raise

    def close(self) -> None:
        """Close all that wait."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for waiting in self._idle.values():
            for _, wire, _ in waiting:
                wire.close()
        self._idle.clear()
        for shared in self._shared.values():
            shared.close()
        self._shared.clear()

    async def _over_tls(self, key: _Key, host: Host, plain: SocketWire, address: str) -> Upstream:
        from cloister.gateway.tls import TlsWire, words  # ssl: see there

        wire = TlsWire(plain, await self._context(h2=key[-1]), server_name=host.name)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await wire.handshake()
        except TimeoutError:
            raise UpstreamError(f"the TLS handshake with {host} timed out", status=504) from None
        except OSError as error:
            raise UpstreamError(f"the TLS handshake with {host} failed: {words(error)}") from None
        if wire.selected_alpn_protocol != "h2":
            return self._h1(key, wire, address, reused=False)
        from cloister.gateway.http.h2_client import (
            H2Connection,
        )  # h2: off the path of those who do not need it

        connection = await H2Connection.start(wire, address=address)
        if (old := self._shared.get(key)) is not None and old is not connection:
            old.retire()
        self._shared[key] = connection
        return connection.open()

    async def _context(self, *, h2: bool) -> ssl.SSLContext:
        """The client context, made once in a thread: it parses all of the host's roots."""
        task = self._contexts.get(h2)
        if task is None or (task.done() and task.exception() is not None):
            from cloister.gateway import tls

            protocols = ("h2", "http/1.1") if h2 else ("http/1.1",)
            task = asyncio.create_task(
                self._offload.call(lambda: tls.client_context(self._roots, self._further, protocols))
            )
            self._contexts[h2] = task
        try:
            return await asyncio.shield(task)
        except OSError as error:
            raise UpstreamError(
                f"the certificate authorities in {error.filename!r} cannot be read: {error.strerror}"
            ) from None

    def _h1(self, key: _Key, wire: Wire, address: str, *, reused: bool) -> H1Upstream:
        return H1Upstream(
            wire, address=address, reused=reused, on_release=lambda wire: self._give(key, wire, address)
        )

    def _take(self, key: _Key) -> tuple[Wire, str] | None:
        waiting = self._idle.get(key)
        if not waiting:
            return None
        _, wire, address = waiting.pop()
        if not waiting:
            del self._idle[key]
        return wire, address

    def _give(self, key: _Key, wire: Wire, address: str) -> None:
        if sum(map(len, self._idle.values())) >= IDLE_LIMIT:
            wire.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(key, []).append((loop.time(), wire, address))
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has waited for too long."""
        loop = asyncio.get_running_loop()
        before = loop.time() - IDLE_S
        for key, waiting in list(self._idle.items()):
            for since, wire, _ in waiting:
                if since <= before:
                    wire.close()
            left = [entry for entry in waiting if entry[0] > before]
            if left:
                self._idle[key] = left
            else:
                del self._idle[key]
        for key, shared in list(self._shared.items()):
            if shared.idle_since is not None and shared.idle_since <= before:
                shared.close()
                del self._shared[key]
        remains = bool(self._idle or self._shared)
        self._sweeper = loop.call_later(IDLE_S, self._sweep) if remains else None
