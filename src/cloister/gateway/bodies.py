"""What bodies go through on their way: looked at for placeholders, changed, freed of secrets, kept to be sent again.

Rule 1: streams. Memory is bounded whatever the size: one part, what a filter holds back, KEEP_BYTES.
Rule 2: a decoded body is looked at, not its encoding; what cannot be decoded towards the sandbox is not delivered
        (it could hold a secret), what cannot be decoded towards the upstream is looked at as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cloister.credentials import decode
from cloister.credentials.placeholder import Scanner
from cloister.credentials.redact import Redactor
from cloister.credentials.replace import Replacer
from cloister.errors import UntrustedInputError
from cloister.gateway.http.streams import Downstream
from cloister.messages import Headers, ResponseHead
from cloister.policy import method_field
from cloister.secret import Secret

if TYPE_CHECKING:
    from cloister.credentials.sigv4 import ChunkSigner
    from cloister.types import Deny

KEEP_BYTES = 64 * 1024
HOLD_BYTES = 256 << 20


class Memory:
    """What all requests together may hold of bodies that must be read before they may leave."""

    def __init__(self, limit_bytes: int = HOLD_BYTES) -> None:
        self.left_bytes = limit_bytes


class Source:
    """The request's body as it comes from the client. It can be read again as long as it is short."""

    def __init__(self, downstream: Downstream, *, idle_s: float, memory: Memory | None = None) -> None:
        self._downstream = downstream
        self._idle_s = idle_s
        self._memory = memory or Memory()
        self._held_bytes = 0
        self._kept: list[bytes] | None = []
        self._kept_bytes = 0
        self._again: list[bytes] = []
        self.ended = downstream.request.length == 0
        self.begun = False

    async def read(self) -> bytes:
        """The next part; b"" at the end. TimeoutError, OSError or UntrustedInputError: the client's fault."""
        if self._again:
            return self._again.pop(0)
        if self.ended:
            return b""
        if not self.begun:
            self.begun = True
            await self._downstream.send_continue()
        async with asyncio.timeout(self._idle_s):
            part = await self._downstream.read()
        self.ended = not part
        self._keep(part)
        return part

    def hold(self, count: int) -> None:
        """So many bytes more stay in memory until `release`. UntrustedInputError if others hold too much already."""
        if count > self._memory.left_bytes:
            raise UntrustedInputError("too many large requests wait to be judged or signed; try again later")
        self._memory.left_bytes -= count
        self._held_bytes += count

    def release(self) -> None:
        """The request is over."""
        self._memory.left_bytes += self._held_bytes
        self._held_bytes = 0

    def rewind(self) -> bool:
        """Start again from the first byte, if that is possible."""
        if self._kept is None:
            return False
        self._again = list(self._kept)
        return True

    def put_back(self, parts: list[bytes]) -> None:
        """Read these again first."""
        self._again = parts + self._again

    @property
    def trailers(self) -> Headers:
        """Valid at the end."""
        return self._downstream.trailers

    def _keep(self, part: bytes) -> None:
        if self._kept is None:
            return
        self._kept_bytes += len(part)
        if self._kept_bytes > KEEP_BYTES:
            self._kept = None
        elif part:
            self._kept.append(part)


class Outgoing:
    """The filters of a request's body."""

    def __init__(
        self,
        *,
        scanner: Scanner | None,
        allowed: frozenset[str],
        encoding: bytes,
        replacements: Sequence[tuple[bytes, Secret]],
        content_type: bytes,
        refused: Callable[[str], Deny | None] | None = None,
    ) -> None:
        """`refused` says why the request must not be taken for one of a method that its body names."""
        self._scanner = scanner
        self._allowed = allowed
        self._refused = refused
        self._fields = method_field.Body(content_type) if refused is not None else None
        self._replacer = Replacer(replacements, content_type=content_type) if replacements else None
        looked_at = scanner is not None or replacements or refused is not None
        self._decoder = _lenient_decoder(encoding) if looked_at else None
        self.chunks: ChunkSigner | None = None  # the last filter of a body that AWS is to take

    @property
    def changes_length(self) -> bool:
        """Whether what leaves may be longer or shorter than what came."""
        return self._replacer is not None

    @property
    def decodes(self) -> bool:
        """Whether what leaves is no longer encoded, as it came."""
        return self._replacer is not None and self._decoder is not None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """As `_filtered`, signed."""
        for piece in self._filtered(data):
            if self.chunks is None:
                yield piece
            else:
                yield from self.chunks.feed(piece)

    def _filtered(self, data: bytes) -> Iterator[bytes]:
        """What may leave. MisplacedPlaceholderError, or UntrustedInputError if it cannot be decoded and must be."""
        if self._decoder is None:
            self._look(data)
            yield self._replacer.feed(data) if self._replacer else data
            return
        if self._replacer is None:  # only looked at: the original leaves
            for piece in self._decoded(data):
                self._look(piece)
                yield b""  # a place to let others run: a little can decode to much
            yield data
            return
        for piece in self._decoder.feed(data):
            self._look(piece)
            yield self._replacer.feed(piece)

    def end(self) -> bytes:
        """What was held back."""
        if self._decoder is not None and self._replacer is not None:
            self._decoder.end()
        rest = self._replacer.end() if self._replacer else b""
        return rest if self.chunks is None else b"".join(self.chunks.feed(rest)) + self.chunks.end()

    def _look(self, data: bytes) -> None:
        if self._fields is not None and self._refused is not None:
            for method in self._fields.feed(data):
                if denial := self._refused(method):
                    raise RefusedMethodError(denial)
        if self._scanner is None:
            return
        found = self._scanner.feed(data) - self._allowed
        if found:
            raise MisplacedPlaceholderError(found)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        try:
            if self._decoder is not None:
                yield from self._decoder.feed(data)
        except UntrustedInputError:  # not what its head says: nobody else can read it either
            self._decoder = None
            self._look(data)


class RefusedMethodError(Exception):
    """A body names another method, which is refused."""

    def __init__(self, denial: Deny) -> None:
        super().__init__(denial.reason)
        self.denial = denial


class MisplacedPlaceholderError(Exception):
    """A body holds placeholders that must not go where it goes."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


class Incoming:
    """The filters of a response's body. `head` is the response's head as the sandbox gets it."""

    def __init__(
        self, head: ResponseHead, secrets: Callable[[], Sequence[Secret]] | None, *, gets_values: bool
    ) -> None:
        """`secrets` gives what is secret by now; None if this sandbox has no credentials.

        `gets_values`: whether a credential is bound to where this comes from.
        """
        self._redactor: Redactor | None = None
        self._decoder: decode.Decoder | None = None
        self.head = head
        if secrets is None:
            return
        if head.length != 0:
            self._redactor = Redactor(secrets(), current=secrets, holds=gets_values)
        from cloister.credentials.redact import redact_head

        if self._redactor is not None:
            encoding = b",".join(head.values(b"content-encoding"))
            self._decoder = decode.decoder(encoding)
        if self._decoder is not None:
            self.head = _decoded_head(head)
        self.head = redact_head(self.head, secrets())

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What may be delivered. UntrustedInputError if it cannot be decoded."""
        if self._redactor is None:
            yield data
        elif self._decoder is None:
            yield self._redactor.feed(data)
        else:
            for piece in self._decoder.feed(data):
                yield self._redactor.feed(piece)

    def end(self) -> bytes:
        """What was held back."""
        if self._decoder is not None:
            self._decoder.end()
        return self._redactor.end() if self._redactor is not None else b""


def _lenient_decoder(encoding: bytes) -> decode.Decoder | None:
    try:
        return decode.decoder(encoding)
    except UntrustedInputError:  # such as aws-chunked: not one that hides anything
        return None


def _decoded_head(head: ResponseHead) -> ResponseHead:
    from dataclasses import replace

    headers = tuple((name, value) for name, value in head.headers if name != b"content-encoding")
    return replace(head, headers=headers, length=None, declared_length=None)
