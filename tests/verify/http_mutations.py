"""Weakened gateways: ways of HTTP that those of gateway_mutations.py leave shut. See mutations.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cloister.gateway import judge, strict
from cloister.gateway.http import body, h1_client, h1_server, h2_heads, h2_server
from cloister.gateway.judge import GrantedRequest
from cloister.gateway.tls import TlsWire
from cloister.gateway.wire import SocketWire
from cloister.messages import RequestHead
from cloister.types import Allow, Deny
from tests.verify.gateway_mutations import lenient_h2
from tests.verify.mutations import Patch, _rule, mutation


@mutation("forwards-extensions")
def forwards_extensions(patch: Patch, _: Path) -> None:
    """What stands behind a chunk's size goes upstream with the next chunk."""
    line, kept = body.Body._line, [b""]

    async def remembering(self: body.Body, limit_bytes: int) -> bytes:
        found = await line(self, limit_bytes)
        kept[0] = found[found.index(b";") :] if b";" in found else kept[0]
        return found

    def chunk(data: bytes) -> bytes:
        extension, kept[0] = kept[0], b""
        return b"%x%b\r\n%b\r\n" % (len(data), extension, data)

    patch.setattr(body.Body, "_line", remembering)
    patch.setattr(h1_client, "chunk", chunk)


@mutation("lenient-answers")
def lenient_answers(patch: Patch, _: Path) -> None:
    """Of what an answer's head says twice the last counts; its connection serves on, whatever is left on it."""
    original = strict.response_head

    def lenient(untrusted: bytes) -> Any:
        first, *others = untrusted.rstrip(b"\r\n").split(b"\r\n")
        kept = {one.partition(b":")[0].lower(): one for one in others}
        return original(b"\r\n".join([first, *kept.values()]) + b"\r\n\r\n")

    def release(self: Any) -> None:
        if not self._done:
            self._done = True
            self._on_release(self._wire)

    patch.setattr(strict, "response_head", lenient)
    patch.setattr(h1_client.H1Upstream, "release", release)
    for wire in (SocketWire, TlsWire):
        patch.setattr(wire, "stale", lambda _wire: False)


@mutation("unjudged-h2")
def unjudged_h2(patch: Patch, scratch: Path) -> None:
    """Over HTTP/2 everything goes to the connection's host, whatever it is and whomever it names."""
    lenient_h2(patch, scratch)
    original = judge.request

    def granting(policy: Any, asked: Any, head: Any, form: Any, *, tls: bool) -> Any:
        found = original(policy, asked, head, form, tls=tls)
        if not isinstance(found, Deny) or asked is None or asked.host is None:
            return found
        allow = Allow(rule=_rule(asked.host, asked.port), reason="unsafe")
        return GrantedRequest(host=asked.host, port=asked.port, allow=allow)

    def any_head(untrusted: list[tuple[bytes, bytes]], *, ended: bool) -> RequestHead:
        found = dict(untrusted)
        return RequestHead(
            method=found.get(b":method", b"GET").decode("latin-1"),
            untrusted_authority=found.get(b":authority", found.get(b"host", b"")).decode("latin-1"),
            path=found.get(b":path", b"/").decode("latin-1"),
            headers=h2_heads._of_request(tuple(untrusted)),
            length=0 if ended else None,
        )

    patch.setattr(judge, "request", granting)
    patch.setattr(h2_heads, "request_head", any_head)


@mutation("h2-unasked")
def h2_unasked(patch: Patch, _: Path) -> None:
    """HTTP/2 is spoken with whoever begins it, and a request that would change to it is a request like any other."""
    serve, request_head = h1_server.serve, strict.request_head

    async def either(wire: Any, handler: Any, **how: Any) -> None:
        if how.get("first") is None and (wire.buffer or await wire.more()) and wire.buffer[:4] == b"PRI ":
            await h2_server.serve(wire, handler, deadlines=how["deadlines"])
        else:
            await serve(wire, handler, **how)

    def forgiving(untrusted: bytes) -> Any:
        return request_head(re.sub(rb"(?i)\r\n(upgrade|http2-settings|connection):[^\r]*", b"", untrusted))

    patch.setattr(h1_server, "serve", either)
    patch.setattr(strict, "request_head", forgiving)
