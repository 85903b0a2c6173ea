"""Send one judged request to its upstream, with its credentials, and the response back without them.

Rule 1: what leaves and what comes back are written anew, from parsed values.
Rule 2: bodies stream in both directions at once; neither side is read faster than the other takes.
Rule 3: a request that an upstream cannot have acted on is sent again once: a reused connection that had gone, or a
        401 with a credential that can be renewed, as long as the body is short enough to have been kept.
Rule 4: a message that was cut on one side is reset on the other; it never looks whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cloister.credentials import decode
from cloister.errors import UntrustedInputError
from cloister.gateway import prepare
from cloister.gateway.bodies import Incoming, Outgoing, Source
from cloister.gateway.http.body import BodyEndedError
from cloister.gateway.http.streams import Downstream, StaleError, Upstream
from cloister.gateway.upstream import UpstreamError
from cloister.messages import Headers, RequestHead, ResponseHead
from cloister.secret import Secret

if TYPE_CHECKING:
    from cloister.gateway.services import Deadlines
    from cloister.gateway.use import Uses
    from cloister.secrets.source import Value

_MEASURED_BYTES = (
    1 << 20
)  # a body that replacing changes is measured up to this size, and sent chunked beyond
_UNAUTHORIZED = 401
_SWITCHING = 101

Values = Mapping[str, "Value"]  # by the credential's name


class ClientFaultError(Exception):
    """The client broke off, or its body is not framed as its head says."""


@dataclass(slots=True)
class Progress:
    """How far an exchange has come: for the audit log, and for what may still be answered."""

    left: bool = False  # a byte of the request may have gone upstream
    sent_bytes: int = 0
    received_bytes: int = 0
    status: int | None = None
    address: str | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a forwarder needs from others. `renew` gives None if a credential has nothing newer."""

    open: Callable[[bool], Awaitable[Upstream]]  # with True: on a new connection
    renew: Callable[[Values], Awaitable[Values | None]]
    outgoing: Callable[[RequestHead, Values], Outgoing]
    secrets: Callable[[], Sequence[Secret]] | None  # None: there are no credentials
    gets_values: bool  # whether one is bound to where the request goes
    switch: Callable[[Downstream, Upstream, ResponseHead, Values], Awaitable[None]]
    deadlines: Deadlines


@dataclass(slots=True)
class Forward:
    """One exchange. `run` returns when the response is whole, or cut as `progress.fault` says."""

    downstream: Downstream
    request: RequestHead
    source: Source
    uses: Uses
    means: Means
    progress: Progress = field(default_factory=Progress)
    _values: Values = field(default_factory=dict)
    _begun: Iterator[bytes] = field(default_factory=lambda: iter(()))  # what is left of a part that was begun

    async def run(self, values: Values) -> None:
        """UpstreamError if no response could be begun; ClientFaultError, or OSError if the client has gone;
        MisplacedPlaceholderError.
        """
        fresh = renewed = False
        while True:
            upstream = await self.means.open(fresh)
            self.progress.address = upstream.address
            try:
                answered = await self._attempt(upstream, values, last=renewed)
            except StaleError:
                upstream.abort()
                if fresh or not self.source.rewind():
                    raise UpstreamError("the upstream closed the connection without an answer") from None
                fresh = True
                continue
            except BaseException:
                upstream.abort()
                raise
            if answered:
                return
            renewed = True
            values = await self.means.renew(values) or values

    async def _attempt(self, upstream: Upstream, values: Values, *, last: bool) -> bool:
        """False if the answer was a 401 that newer values may turn."""
        self._values = values
        head = self._with_encodings(prepare.head(self.request, self.uses, values))
        outgoing = self.means.outgoing(head, values)
        body, self._begun = b"", iter(())
        if outgoing.decodes:
            head = replace(
                head, headers=tuple(pair for pair in head.headers if pair[0] != b"content-encoding")
            )
        if self.request.length != 0 and outgoing.changes_length:
            body, head = await self._measured(outgoing, head)
        if (resigner := prepare.resigner(head, self.uses, values)) is not None:
            if resigner.needs_body and self.request.length != 0:
                body = await self._whole(outgoing, body)
            head = resigner.sign(head, body=body)
            outgoing.chunks = resigner.chunks
        ended = self.request.length == 0 or (self.source.ended and not body and head.length == 0)
        self.progress.left = True
        await upstream.send_head(head, ended=ended)
        if ended:
            return await self._answer(upstream, last=last, deadline=None)
        return await self._both_ways(upstream, outgoing, body, last=last)

    async def _both_ways(self, upstream: Upstream, outgoing: Outgoing, body: bytes, *, last: bool) -> bool:
        loop = asyncio.get_running_loop()
        limit_s = self.means.deadlines.response_s
        try:
            async with asyncio.timeout(limit_s) as deadline, asyncio.TaskGroup() as group:
                upload = group.create_task(
                    self._upload(upstream, outgoing, body, lambda: deadline.reschedule(loop.time() + limit_s))
                )
                done = await self._answer(upstream, last=last, deadline=deadline)
                upload.cancel()
                return done
        except TimeoutError:
            raise UpstreamError("the upstream did not answer in time", status=504) from None
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _upload(
        self, upstream: Upstream, outgoing: Outgoing, body: bytes, alive: Callable[[], None]
    ) -> None:
        """The request's body. An upstream that stops reading may still answer: its errors end the upload only."""
        try:
            if body:
                await self._send(upstream, body)
            async for piece in self._pieces(outgoing):
                if piece:
                    await self._send(upstream, piece)
                else:
                    await asyncio.sleep(0)
                if not self.progress.status:
                    alive()
            await upstream.finish(self.source.trailers)
        except UpstreamError:
            return
        except UntrustedInputError as error:
            raise ClientFaultError(f"the request's body: {error}") from None

    async def _send(self, upstream: Upstream, data: bytes) -> None:
        self.progress.sent_bytes += len(data)
        try:
            async with asyncio.timeout(self.means.deadlines.idle_s):
                await upstream.write(data)
        except TimeoutError:
            raise UpstreamError("the upstream does not take the request's body", status=504) from None

    async def _next_part(self) -> bytes:
        try:
            return await self.source.read()
        except BodyEndedError:
            raise ClientFaultError("the client broke off within the request's body") from None
        except UntrustedInputError as error:
            raise ClientFaultError(f"the request's body is not framed as its head says: {error}") from None
        except TimeoutError:
            raise ClientFaultError("the request's body did not come in time") from None
        except OSError:
            raise ClientFaultError("the client broke off within the request's body") from None

    async def _pieces(self, outgoing: Outgoing) -> AsyncIterator[bytes]:
        """The rest of the body as it may leave. UntrustedInputError if it cannot be read and must be."""
        for piece in self._begun:
            yield piece
        while part := await self._next_part():
            for piece in outgoing.feed(part):
                yield piece
        yield outgoing.end()

    async def _measured(self, outgoing: Outgoing, head: RequestHead) -> tuple[bytes, RequestHead]:
        """As much of a changed body as is read ahead, and the head with what is then known of its length."""
        body, read = bytearray(), 0
        try:
            while max(len(body), read) <= _MEASURED_BYTES:
                part = await self._next_part()
                if not part:
                    body += outgoing.end()
                    return bytes(body), replace(head, length=len(body), declared_length=True)
                read += len(part)
                self._begun = outgoing.feed(part)
                for piece in self._begun:
                    self.source.hold(len(piece))
                    body += piece
                    if len(body) > _MEASURED_BYTES:  # a little may decode to much: the rest waits
                        break
        except UntrustedInputError as error:
            raise ClientFaultError(f"the request's body: {error}") from None
        return bytes(body), replace(head, length=None, declared_length=False)

    async def _whole(self, outgoing: Outgoing, body: bytes) -> bytes:
        """All of a body that must be hashed before its head can leave."""
        from cloister.credentials import sigv4  # loads OpenSSL's hashes: only for what is signed

        whole = bytearray(body)
        try:
            async for piece in self._pieces(outgoing):
                self.source.hold(len(piece))
                whole += piece
                if len(whole) > sigv4.BODY_LIMIT_BYTES:
                    raise ClientFaultError(
                        f"the request's body is over {sigv4.BODY_LIMIT_BYTES >> 20} MiB and no hash of it is given, "
                        "so it cannot be signed"
                    )
        except UntrustedInputError as error:
            raise ClientFaultError(f"the request's body: {error}") from None
        return bytes(whole)

    async def _answer(self, upstream: Upstream, *, last: bool, deadline: asyncio.Timeout | None) -> bool:
        if deadline is None:
            try:
                async with asyncio.timeout(self.means.deadlines.response_s):
                    head = await upstream.response(self.downstream.send_continue)
            except TimeoutError:
                raise UpstreamError("the upstream did not answer in time", status=504) from None
        else:
            head = await upstream.response(self.downstream.send_continue)
            deadline.reschedule(None)  # from here on each part has its own
        if head.status == _UNAUTHORIZED and not last and self.uses.injected and self._may_repeat():
            upstream.abort()
            return False
        self.progress.status = head.status
        if head.status == _SWITCHING:
            await self.means.switch(self.downstream, upstream, head, self._values)
            return True
        await self._deliver(upstream, head)
        return True

    def _may_repeat(self) -> bool:
        return (self.request.length == 0 or self.source.ended) and self.source.rewind()

    async def _deliver(self, upstream: Upstream, head: ResponseHead) -> None:
        """The response, as far as it comes. What cuts it short is in `progress.fault`; the client sees a reset."""
        secrets = self.means.secrets
        try:
            incoming = Incoming(head, secrets, gets_values=self.means.gets_values)
        except UntrustedInputError as error:
            raise UpstreamError(f"the answer's body cannot be read: {error}") from None
        if incoming.head.length == 0:
            await self.downstream.send_head(incoming.head, ended=True)
            upstream.release()
            return
        await self.downstream.send_head(incoming.head, ended=False)
        if not upstream.at_hand:  # else it leaves in one piece with the first part
            await self.downstream.flush()
        try:
            await self._parts(upstream, incoming)
            await self.downstream.finish(_redacted(upstream.trailers, secrets() if secrets else ()))
            upstream.release()
        except (UpstreamError, UntrustedInputError, TimeoutError) as error:
            self.progress.fault = f"cut short: {error or type(error).__name__}"
            upstream.abort()
            self.downstream.abort()

    async def _parts(self, upstream: Upstream, incoming: Incoming) -> None:
        loop, limit_s = asyncio.get_running_loop(), self.means.deadlines.response_s
        async with asyncio.timeout(limit_s) as deadline:
            while part := await upstream.read():
                self.progress.received_bytes += len(part)
                for piece in incoming.feed(part):
                    if piece:
                        await self.downstream.write(piece)
                    else:
                        await asyncio.sleep(0)  # decoding can go on for long and give nothing
                deadline.reschedule(loop.time() + limit_s)
            if rest := incoming.end():
                await self.downstream.write(rest)

    def _with_encodings(self, head: RequestHead) -> RequestHead:
        """Ask only for encodings that can be undone, if there is anything to take out of the answer."""
        if self.means.secrets is None:
            return head
        asked = b",".join(head.values(b"accept-encoding"))
        wanted = b"identity" if head.values(b"range") else decode.accept_encoding(asked)
        kept = tuple((name, value) for name, value in head.headers if name != b"accept-encoding")
        return replace(head, headers=(*kept, (b"accept-encoding", wanted)))


def _redacted(trailers: Headers, secrets: Sequence[Secret]) -> Headers:
    if not trailers or not secrets:
        return trailers
    from cloister.credentials.redact import redact_head

    return redact_head(ResponseHead(status=200, headers=trailers), secrets).headers
