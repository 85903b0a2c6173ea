"""The encoding of SSH: strings, numbers, keys (RFC 4251 section 5). Raises UntrustedInputError only."""

from __future__ import annotations

from cloister.errors import UntrustedInputError


class Reader:
    """Reads fields one after the other."""

    def __init__(self, untrusted: bytes) -> None:
        self._data = untrusted
        self._at = 0

    def byte(self) -> int:
        return self._take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def end(self) -> None:
        """Nothing must follow."""
        if self._at != len(self._data):
            raise UntrustedInputError("bytes behind a message of SSH")

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise UntrustedInputError("a message of SSH is cut")
        part = self._data[self._at : self._at + count]
        self._at += count
        return part


def string(data: bytes) -> bytes:
    """A field with its length before it."""
    return len(data).to_bytes(4, "big") + data
