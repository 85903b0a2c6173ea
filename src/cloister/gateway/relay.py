"""A WebSocket of the sandbox: check the upstream's yes, then pass messages on with the filters of bodies.

Rule 1: what a request's body must not carry a message must not either; what a response's must not show, neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cloister.credentials.redact import Redactor, redact_head
from cloister.gateway.bodies import MisplacedPlaceholderError
from cloister.gateway.http import websocket
from cloister.gateway.http.body import HOP_BY_HOP
from cloister.gateway.upstream import UpstreamError

if TYPE_CHECKING:
    from cloister.gateway.bodies import Outgoing
    from cloister.gateway.forward import Progress
    from cloister.gateway.http.streams import Downstream, Upstream
    from cloister.messages import RequestHead, ResponseHead
    from cloister.secret import Secret

_OWN = HOP_BY_HOP | {b"sec-websocket-accept", websocket.EXTENSIONS}


def request_head(head: RequestHead) -> RequestHead:
    """A request to switch, without extensions: compressed messages could not be looked at."""
    from dataclasses import replace

    kept = tuple(pair for pair in head.headers if pair[0] != websocket.EXTENSIONS)
    return replace(head, headers=kept)


async def switch(
    downstream: Downstream,
    upstream: Upstream,
    head: ResponseHead,
    *,
    new_outgoing: Callable[[], Outgoing],
    secrets: Callable[[], Sequence[Secret]],
    gets_values: bool,
    progress: Progress,
) -> None:
    """Answer 101 and relay until both sides have closed. UpstreamError if the upstream has not accepted.

    MisplacedPlaceholderError if a message carried a placeholder to where it must not go; both sides are closed then.
    """
    key = downstream.request.websocket_key
    if key is None or (fault := websocket.refusal(key, head)) is not None:
        raise UpstreamError("a 101 that nobody asked for" if key is None else str(fault))
    shown = redact_head(head, secrets())
    headers = tuple(pair for pair in shown.headers if pair[0] not in _OWN)
    client = await downstream.switch(websocket.accept_key(key), headers)
    misplaced: list[MisplacedPlaceholderError] = []
    counts = websocket.Counts()
    try:
        await websocket.relay(
            client,
            upstream.switch(),
            to_upstream=lambda: _Sent(new_outgoing(), misplaced),
            to_client=lambda: Redactor(secrets(), current=secrets, holds=gets_values),
            counts=counts,
        )
    finally:
        progress.sent_bytes, progress.received_bytes = counts.sent_bytes, counts.received_bytes
        progress.fault = counts.fault
    if misplaced:
        raise misplaced[0]


class _Sent:
    """One message towards the upstream."""

    def __init__(self, outgoing: Outgoing, misplaced: list[MisplacedPlaceholderError]) -> None:
        self._outgoing = outgoing
        self._misplaced = misplaced

    def feed(self, data: bytes) -> bytes:
        try:
            return b"".join(self._outgoing.feed(data))
        except MisplacedPlaceholderError as error:
            self._misplaced.append(error)
            raise websocket.RefusedMessageError("a placeholder on its way to where it must not go") from None

    def end(self) -> bytes:
        return self._outgoing.end()
