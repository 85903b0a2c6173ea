"""Frames between the two halves of a gateway in a container: cut them out of a stream of bytes, and write them.

    4 bytes  length of what follows, big-endian
    1 byte   b"M": a message, one JSON object · b"D": data of a stream, behind its number in 4 bytes

Rule 1: no I/O. Bytes may come in any pieces.
Rule 2: a frame that is too long, of another kind or no JSON object is a FrameError, at its head where that tells: the
        stream ends there. What the other half says is judged by who hears it.
"""

from __future__ import annotations

import json
import struct

from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DATA_LIMIT_BYTES = 32 << 10
MESSAGE_LIMIT_BYTES = 64 << 10  # of a message from the container
ORDERS_LIMIT_BYTES = 32 << 20  # of one to it: the first holds the plan and all root certificates
_HEAD = struct.Struct(">IB")
_NUMBER = struct.Struct(">I")
_MESSAGE, _DATA = b"MD"


class FrameError(Exception):
    """What came is no frame."""


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream."""

    stream: int
    content: bytes


Message = dict[str, object]


class Frames:
    """The frames in a stream of bytes, as they become whole."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message | Data]:
        """The frames that `data` completes. FrameError at the first that is none; those before it have come out."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer)
            self._check(length, kind)
            end = 4 + length
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield _message(content) if kind == _MESSAGE else _data(content)

    @property
    def is_within(self) -> bool:
        """Whether the stream has stopped in the middle of a frame."""
        return bool(self._buffer)

    def _check(self, length: int, kind: int) -> None:
        if kind == _MESSAGE:
            least, most = 1, self._limit_bytes + 1
        elif kind == _DATA:
            least, most = 1 + _NUMBER.size, DATA_LIMIT_BYTES + 1 + _NUMBER.size
        else:
            raise FrameError(f"a frame of an unknown kind ({kind})")
        if not least <= length <= most:
            raise FrameError(f"a frame of {length} bytes")


def message(content: Message) -> bytes:
    """A message as a frame."""
    text = json.dumps(content, separators=(",", ":")).encode()
    return _HEAD.pack(len(text) + 1, _MESSAGE) + text


def data(stream: int, content: bytes) -> bytes:
    """Bytes of a stream, at most DATA_LIMIT_BYTES of them, as a frame."""
    return _HEAD.pack(len(content) + 1 + _NUMBER.size, _DATA) + _NUMBER.pack(stream) + content


def _message(content: bytes) -> Message:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise FrameError("a message that is no JSON") from None
    if not isinstance(found, dict):
        raise FrameError("a message that is no JSON object")
    return found


def _data(content: bytes) -> Data:
    (stream,) = _NUMBER.unpack_from(content)
    return Data(stream, content[_NUMBER.size :])
