"""What a gateway does for `cloister audit`: it lets dependency code show where it wants to go, and with what.

A refused name does not exist for an ordinary sandbox (ADR 0020), so what the code would have sent there is never seen.
With a lure, every name is answered, and requests to refused ones are read to their end (bounded), searched for
canaries, written down and refused: nothing is dialled.

Rule 1: a lure grants nothing. It decides only how a refusal is told; the policy has spoken before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.credentials import canary
from cloister.credentials.placeholder import Scanner
from cloister.errors import UntrustedInputError
from cloister.gateway.bodies import MisplacedPlaceholderError, Outgoing
from cloister.types import Deny

if TYPE_CHECKING:
    from cloister.gateway.bodies import Source
    from cloister.messages import RequestHead

BODY_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lure:
    """Canaries, as `canary.needles` spells them."""

    needles: Mapping[str, bytes]

    async def read(self, head: RequestHead, source: Source) -> Deny | None:
        """Read a refused request; why it is worse than refused, if a canary is in it."""
        scanner = Scanner(self.needles)
        scanner.find_in_head(head)
        body = Outgoing(
            scanner=scanner,
            allowed=frozenset(),
            encoding=b",".join(head.values(b"content-encoding")),
            replacements=(),
            content_type=b"",
        )
        read_bytes = 0
        with suppress(OSError, TimeoutError, UntrustedInputError):  # the client's fault; what has come counts
            while read_bytes < BODY_LIMIT_BYTES and (part := await source.read()):
                read_bytes += len(part)
                with suppress(MisplacedPlaceholderError):  # `scanner.found` has them all
                    for _ in body.feed(part):
                        pass
        return canary.denial(scanner.found, head.untrusted_authority)

    def look(self, untrusted: bytes, target: str) -> Deny | None:
        """The same for bytes that are no HTTP."""
        return canary.denial(Scanner(self.needles).feed(untrusted), target)


def of_plan(plan: Mapping[str, object]) -> Lure | None:
    """The plan's "watch"; None for an ordinary sandbox."""
    watch = plan.get("watch")
    if not isinstance(watch, dict):
        return None
    return Lure(needles=canary.needles(watch["canaries"]))
