"""Serve one request of the sandbox: judge it, choose its credentials, send it on, write it down.

Rule 1: every request on a connection is judged anew, by its own host, method and path.
Rule 2: a request of which a byte may have left is written to the audit log as a request, with what was sent, however
        it ended: the sandbox chooses how its requests end. One of which nothing left is a refusal.
Rule 3: a refusal is an answer, so that an agent sees why; the connection ends after it where the protocol allows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.audit.log import Event
from cloister.credentials.placeholder import Scanner
from cloister.errors import CredentialError
from cloister.gateway import git, judge, prepare, strict, use
from cloister.gateway.bodies import MisplacedPlaceholderError, Outgoing, RefusedMethodError, Source
from cloister.gateway.forward import ClientFaultError, Forward, Means, Progress, Values
from cloister.gateway.judge import Asked, GrantedRequest
from cloister.gateway.record import printable
from cloister.gateway.upstream import UpstreamError
from cloister.gateway.use import Alarm, Uses
from cloister.messages import RequestHead, ResponseHead, as_cgi
from cloister.types import Deny, Host

if TYPE_CHECKING:
    from cloister.gateway.http.streams import Downstream, Upstream
    from cloister.gateway.page import Page
    from cloister.gateway.services import Services
    from cloister.secrets.source import Value


# Some servers take these for the path (IIS, Symfony), so they would be a path that was not judged.
_OTHER_PATHS = frozenset({b"x-original-url", b"x-rewrite-url"})
_HINT = Deny(
    reason="this is cloister's HTTP proxy, and the request names no host",
    ask="use it as a proxy (CONNECT host:port, or an http:// URL as the target), or connect directly",
)


class Request:
    """One request on a connection that was made as `asked` (None on the explicit proxy: plain HTTP only)."""

    def __init__(self, services: Services, asked: Asked | None, downstream: Downstream, *, tls: bool) -> None:
        self._services = services
        self._asked = asked
        self._down = downstream
        self._head = downstream.request
        self._tls = tls
        self._started = time.monotonic()
        self._source = Source(downstream, idle_s=services.deadlines.idle_s, memory=services.memory)
        self._progress = Progress()
        self._shown = asked or judge.shown(self._head)

    async def serve(self) -> None:
        """Answer it. OSError if the client has gone."""
        try:
            await self._serve()
        finally:
            self._source.release()

    async def _serve(self) -> None:
        form = self._down.form
        if self._asked is None and form is not strict.Form.ABSOLUTE and form is not strict.Form.AUTHORITY:
            await self._refuse(_HINT, 400)
            return
        granted = judge.request(self._services.policy, self._asked, self._head, form, tls=self._tls)
        if isinstance(granted, GrantedRequest):
            granted = self._services.unhealthy() or granted
        if isinstance(granted, Deny):
            await self._refuse(granted)
            return
        headers = tuple(pair for pair in self._head.headers if as_cgi(pair[0]) not in _OTHER_PATHS)
        head = replace(self._head, untrusted_authority=granted.authority(tls=self._tls), headers=headers)
        if head.websocket_key is not None:
            from cloister.gateway import relay

            head = relay.request_head(head)
        uses = self._credentials(granted, head)
        if not isinstance(uses, Uses):
            await self._stop(uses)
            return
        push = git.push(self._services.policy.push, head)
        if push is not None and (refused := await push.refusal(self._source)):
            await self._refuse_push(refused)
            return
        await self._forward(granted, head, uses)

    def _credentials(self, granted: GrantedRequest, head: RequestHead) -> Uses | Alarm | Deny:
        candidates = use.bound(self._services.policy, granted.host, granted.port)
        if self._services.watched:
            found = Scanner(self._services.watched).find_in_head(head)
            if found and (alarm := use.misplaced(found, candidates, granted.host, tls=self._tls)):
                return alarm
        return use.choose(candidates, head, granted.host, tls=self._tls)

    async def _forward(self, granted: GrantedRequest, head: RequestHead, uses: Uses) -> None:
        """Send it on; whatever happens, there is a line of it."""
        forward = Forward(
            downstream=self._down,
            request=head,
            source=self._source,
            uses=uses,
            means=self._means(granted, uses),
            progress=self._progress,
        )
        try:
            await forward.run(await self._values(uses, granted.host))
        except UpstreamError as error:
            await self._failed(granted, Deny(reason=error.reason, rule=granted.allow.rule.id), error.status)
        except CredentialError as error:
            ask = error.resolution
            await self._failed(granted, Deny(reason=error.brief, rule=granted.allow.rule.id, ask=ask), 502)
        except MisplacedPlaceholderError as error:
            self._progress.fault = str(error)
            candidates = use.bound(self._services.policy, granted.host, granted.port)
            alarm = use.misplaced(error.names, candidates, granted.host, tls=self._tls)
            self._write(granted)
            await self._stop(alarm or Deny(reason=str(error)))
        except RefusedMethodError as error:
            await self._failed(granted, error.denial, 403)
        except ClientFaultError as error:
            self._progress.fault = str(error)
            await self._failed(granted, Deny(reason=str(error), rule=granted.allow.rule.id), 400)
        except BaseException as error:  # the client has gone, or the sandbox ends
            if self._progress.left:
                left = self._down.left or isinstance(error, OSError)
                what = "the client left" if left else type(error).__name__
                self._progress.fault = self._progress.fault or f"cut short: {what}"
                self._write(granted)
            raise
        else:
            self._write(granted)

    async def _values(self, uses: Uses, host: Host) -> Mapping[str, Value]:
        """The values of what is injected. CredentialError."""
        vault = self._services.vault
        names = {chosen.credential.name: chosen.credential for chosen in uses.injected}
        return {name: await vault.get(credential, host.name) for name, credential in names.items()}

    def _means(self, granted: GrantedRequest, uses: Uses) -> Means:
        services = self._services
        gets_values = self._tls and bool(use.bound(services.policy, granted.host, granted.port))
        credentials = {chosen.credential.name: chosen.credential for chosen in uses.injected}

        async def renew(values: Mapping[str, Value]) -> Mapping[str, Value] | None:
            newer = {
                name: await services.vault.renew(credentials[name], value) for name, value in values.items()
            }
            if not any(newer.values()):
                return None
            return {name: newer[name] or value for name, value in values.items()}

        async def open_upstream(fresh: bool) -> Upstream:
            # A client that speaks HTTP/1.1 gets what it would get of this upstream; nor has HTTP/2 its upgrades.
            return await services.pool.open(
                granted.host, granted.port, granted.allow.rule, tls=self._tls, h2=self._down.h2, fresh=fresh
            )

        async def switch(
            downstream: Downstream, upstream: Upstream, head: ResponseHead, values: Values
        ) -> None:
            from cloister.gateway import relay  # wsproto: off the path of all other requests

            await relay.switch(
                downstream,
                upstream,
                head,
                new_outgoing=lambda: self._outgoing(granted, uses, self._head, values),
                secrets=services.vault.known,
                gets_values=gets_values,
                progress=self._progress,
            )

        return Means(
            open=open_upstream,
            renew=renew,
            outgoing=lambda head, values: self._outgoing(granted, uses, head, values),
            secrets=services.vault.known if services.watched else None,
            gets_values=gets_values,
            switch=switch,
            deadlines=services.deadlines,
        )

    def _outgoing(
        self, granted: GrantedRequest, uses: Uses, head: RequestHead, values: Mapping[str, Value]
    ) -> Outgoing:
        bound = use.bound(self._services.policy, granted.host, granted.port) if self._tls else ()
        watched = self._services.watched
        return Outgoing(
            scanner=Scanner(watched) if watched else None,
            allowed=frozenset(chosen.credential.name for chosen in bound),
            encoding=b",".join(head.values(b"content-encoding")),
            replacements=prepare.replacements(uses, values),
            content_type=b",".join(head.values(b"content-type")),
            refused=self._method_refusal(granted, head),
        )

    def _method_refusal(
        self, granted: GrantedRequest, head: RequestHead
    ) -> Callable[[str], Deny | None] | None:
        """What judges the methods that a body names; None where methods make no difference."""
        policy = self._services.policy
        if head.length == 0 or not judge.depends_on_method(policy, granted, head):
            return None
        return lambda method: judge.other_method(policy, granted, head, method)

    # What is said and written.

    async def _stop(self, why: Alarm | Deny) -> None:
        if isinstance(why, Alarm):
            self._services.alarm(why.denial.reason, host=self._shown.untrusted_target)
            why = why.denial
        await self._refuse(why)

    async def _failed(self, granted: GrantedRequest, denial: Deny, status: int) -> None:
        """It could not be sent, or was not answered."""
        if self._progress.left:
            self._progress.status = self._progress.status or status
            self._progress.fault = denial.reason
            self._write(granted)
        else:
            self._log_refusal(denial, status)
        await self._show(denial, status)

    async def _refuse(self, denial: Deny, status: int = 403) -> None:
        if self._services.lure is not None and not self._progress.left:
            denial = await self._services.lure.read(self._head, self._source) or denial
        self._log_refusal(denial, status)
        if git.is_push_advertisement(self._head):
            await self._answer(git.advertisement(denial))
            return
        await self._show(denial, status)

    async def _refuse_push(self, refused: git.Refused) -> None:
        self._log_refusal(refused.denial, 403)
        await self._answer(refused.answer)

    def _log_refusal(self, denial: Deny, status: int) -> None:
        self._services.refuse(
            denial,
            self._shown,
            protocol="https" if self._tls else "http",
            status=status,
            method=self._head.method,
            path=self._head.path,
        )

    async def _show(self, denial: Deny, status: int) -> None:
        """The page, if nothing of a response has gone."""
        if self._down.answered:
            self._down.abort()
            return
        accept = b",".join(self._head.values(b"accept")).decode("latin-1")
        page = self._services.page(denial, self._shown, status=status, untrusted_accept=accept)
        self._down.keep_alive = False
        await self._answer(page)

    async def _answer(self, page: Page) -> None:
        """Our own answer."""
        async with asyncio.timeout(self._services.deadlines.head_s):
            await self._down.send_head(page.head(), ended=self._head.method == "HEAD" or not page.body)
            if self._head.method != "HEAD" and page.body:
                await self._down.write(page.body)
                await self._down.finish()

    def _write(self, granted: GrantedRequest) -> None:
        progress = self._progress
        self._services.record.event(
            Event(
                kind="request",
                host=granted.host.name,
                port=granted.port,
                via=self._shown.via,
                protocol="https" if self._tls else "http",
                rule=granted.allow.rule.id,
                method=self._head.method,
                path=printable(self._head.path),
                status=progress.status,
                address=progress.address,
                sent_bytes=progress.sent_bytes,
                received_bytes=progress.received_bytes,
                duration_ms=int((time.monotonic() - self._started) * 1000),
                reason=progress.fault,
            )
        )
