"""Terminate TLS with a leaf of the sandbox's own CA, so that a refusal can be read.

Rule 1: a leaf's private key reaches OpenSSL through a memfd, never through a named file.
Rule 2: nothing of what the sandbox says in here ever goes upstream.
Rule 3: imported at the first refusal over TLS, not before: `ssl` takes 4 MB and 8 ms.
"""

from __future__ import annotations

import contextlib
import os
import ssl

from cloister.gateway.authority import Leaf
from cloister.gateway.wire import READ_BYTES, SocketWire, take


class TlsWire:
    """TLS (server side) over a `SocketWire`; the ClientHello may already be in its buffer."""

    __slots__ = ("_incoming", "_inner", "_outgoing", "_tls", "buffer")

    def __init__(self, inner: SocketWire, context: ssl.SSLContext) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.buffer = bytearray()

    async def handshake(self) -> None:
        """OSError (ssl.SSLError among them) if the client does not want our certificate."""
        self._incoming.write(take(self._inner))
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise ConnectionResetError("the client left within the TLS handshake") from None
            except ssl.SSLError:
                await self._flush()  # our alert
                raise
            else:
                await self._flush()
                return

    async def more(self) -> bool:
        while True:
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    return False
            except ssl.SSLZeroReturnError:
                return False
            else:
                self.buffer += data
                return bool(data)

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def finish(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # the client has not said goodbye yet, and need not
            self._tls.unwrap()
        await self._flush()
        await self._inner.finish()

    async def _feed(self) -> bool:
        if not await self._inner.more():
            self._incoming.write_eof()
            return False
        self._incoming.write(take(self._inner))
        return True

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._inner.send(data)


def server_context(leaf: Leaf) -> ssl.SSLContext:
    """A server's context with this certificate. No tickets: a refused client is not expected back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, leaf.private_key + leaf.certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
