"""TLS over a socket, both ways: towards the sandbox under its own CA, towards upstreams under the host's.

Rule 1: a leaf's private key reaches OpenSSL through a memfd, never through a named file.
Rule 2: an upstream's certificate is verified for the name that was judged, always; there is no switch.
Rule 3: the end of a stream without TLS's own goodbye is told (`truncated`): a cut must not look like an end.
Rule 4: imported when TLS is first terminated, not before: `ssl` takes 4 MB and 8 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Sequence

from cloister.gateway.authority import Leaf
from cloister.gateway.wire import SCRATCH_BYTES, SocketWire, scratch, take

_GULP_BYTES = 256 * 1024
_RECORD_BYTES = 16 * 1024  # RFC 8446 section 5.1; OpenSSL gives at most one record a read


class TlsWire:
    """See `wire.Wire`. The client's side if `server_name` is given. What the inner wire has read is used first."""

    __slots__ = (
        "_ended",
        "_incoming",
        "_inner",
        "_lock",
        "_outgoing",
        "_tls",
        "buffer",
        "truncated",
    )

    def __init__(self, inner: SocketWire, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        self._inner = inner
        self._lock = asyncio.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self.buffer = bytearray()
        self.truncated = False
        self._ended = False  # nothing more can come

    @property
    def selected_alpn_protocol(self) -> str | None:
        """What ALPN settled on; None if the other side does not speak ALPN."""
        return self._tls.selected_alpn_protocol()

    @property
    def descriptor(self) -> int:
        return self._inner.descriptor

    async def handshake(self) -> None:
        """OSError (ssl.SSLError among them) if the two do not agree, or the other side's certificate is no good."""
        if self._inner.buffer:
            self._incoming.write(take(self._inner))
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise ConnectionResetError("the other side left within the TLS handshake") from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # our alert
                raise
            else:
                await self._flush()
                return

    async def more(self) -> bool:
        """Read at least once; all the records that have come, up to some 256 KiB. What the buffer holds does not count:
        who asks for more has looked at it.
        """
        had = len(self.buffer)
        while True:
            self._decrypt()
            if self._outgoing.pending:
                await self._flush()
            if len(self.buffer) > had:
                return True
            if self._ended or not await self._feed():
                return False

    async def send(self, data: bytes) -> None:
        async with self._lock:  # two senders would mix their records
            self._tls.write(data)
            await self._inner.send(self._outgoing.read())

    async def finish(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # the other side has not said goodbye yet, and need not
            self._tls.unwrap()
        await self._flush()
        await self._inner.finish()

    def stale(self) -> bool:
        """As `SocketWire.stale`. What a server sends after the handshake (session tickets) is not an answer."""
        try:
            while data := self._inner.sock.recv(_RECORD_BYTES):
                self._incoming.write(data)
        except BlockingIOError:
            pass
        except OSError:
            return True
        else:
            return True
        self._decrypt()
        return self._ended or bool(self.buffer)

    def close(self) -> None:
        self._inner.close()

    def reset(self) -> None:
        self._inner.reset()

    def _decrypt(self) -> None:
        """Move what can be read into the buffer, and notice if the other side has said goodbye."""
        view, got = scratch.view, 0
        try:
            while self._incoming.pending or self._tls.pending():  # asking for more would cost an exception
                count: int = self._tls.read(_RECORD_BYTES, view[got:])  # type: ignore[assignment]  # with a buffer: a count
                if not count:  # close_notify reads as no bytes
                    self._ended = True
                    return
                got += count
                if got > SCRATCH_BYTES - _RECORD_BYTES:
                    self.buffer += view[:got]
                    got = 0
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLEOFError:
            self.truncated = self._ended = True
        finally:
            if got:
                self.buffer += view[:got]

    async def _feed(self) -> bool:
        data = await self._inner.receive(_GULP_BYTES)
        if not data:
            self.truncated = self._ended = True
            self._incoming.write_eof()
            return False
        self._incoming.write(data)
        return True

    async def _flush(self) -> None:
        async with self._lock:
            if data := self._outgoing.read():
                await self._inner.send(data)


def server_context(leaf: Leaf, protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """A server's context with this certificate. No tickets: they would outlive what they were judged for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    context.num_tickets = 0
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, leaf.private_key + leaf.certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def client_context(roots: str | None, further: Sequence[str], protocols: Sequence[str]) -> ssl.SSLContext:
    """For upstreams: verifies chain, date and name. Blocks for some 20 ms (it parses the host's roots).

    OSError names a file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    if roots is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    for path in ([roots] if roots else []) + list(further):
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise OSError(getattr(error, "errno", None) or 22, "no certificates in it", path) from None
    return context


def words(error: BaseException) -> str:
    """What went wrong in a handshake, for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
