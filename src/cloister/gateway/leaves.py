"""TLS contexts with leaf certificates, kept for the names that are asked for again.

Rule 1: bounded; the least recently used is dropped first.
Rule 2: a leaf is renewed long before it expires.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from cloister.gateway.authority import Authority

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

LEAVES_LIMIT = 64  # an SSL context is some 50 KiB
_RENEW_AFTER_S = 86400


class LeafCache:
    """Server contexts by subject, the least recently used dropped first."""

    def __init__(
        self, authority: Authority, *, limit: int = LEAVES_LIMIT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._authority = authority
        self._limit = limit
        self._clock = clock
        self._contexts: OrderedDict[tuple[str | bytes, bool], tuple[float, ssl.SSLContext]] = OrderedDict()

    def context(self, subject: str | bytes, *, intercepts: bool = False) -> ssl.SSLContext:
        """A server context with a certificate for a canonical name or a packed address.

        With `intercepts` it offers HTTP/2 too; a refusal is told over HTTP/1.1.
        """
        key = (subject, intercepts)
        made, context = self._contexts.get(key, (0.0, None))
        if context is None or self._clock() - made > _RENEW_AFTER_S:
            from cloister.gateway.tls import server_context  # ssl: see there

            protocols = ("h2", "http/1.1") if intercepts else ("http/1.1",)
            context = server_context(self._authority.leaf(subject), protocols)
            self._contexts[key] = (self._clock(), context)
        self._contexts.move_to_end(key)
        while len(self._contexts) > self._limit:
            self._contexts.popitem(last=False)
        return context
