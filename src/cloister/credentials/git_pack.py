"""Read the commits of a pack as it comes, to tell whether an update is a fast-forward (gitformat-pack(5)).

Rule 1: bounded: objects are inflated and forgotten; only commits are kept, COMMITS_LIMIT of them, and TEXTS_BYTES of
        what they say.
Rule 2: a commit that is stored as a difference is rebuilt if its base is a commit that was seen; else it is unknown,
        and what is unknown links nothing. That errs on the side of "forced".
Rule 3: raises UntrustedInputError only.
"""

from __future__ import annotations

import zlib
from itertools import takewhile

from cloister.errors import UntrustedInputError

COMMITS_LIMIT = 20_000
COMMIT_BYTES = 1 << 20
TEXTS_BYTES = 16 << 20  # of commits that may become bases of differences
_COMMIT, _OFS_DELTA, _REF_DELTA = 1, 6, 7
_HEADER_BYTES = 12
_INFLATE_BYTES = 64 * 1024


class Commits:
    """The commits of one pack. `complete` once every object has been read."""

    def __init__(self, *, object_format: str = "sha1") -> None:
        import hashlib  # loads OpenSSL, 1.3 MB: a gateway may never see a push

        self._hash = hashlib.sha256 if object_format == "sha256" else hashlib.sha1
        self._id_bytes = self._hash(usedforsecurity=False).digest_size
        self._buffer = bytearray()
        self._objects_left: int | None = None
        self._position = 0  # in the pack, of the buffer's first byte
        self._stream: zlib._Decompress | None = None
        self._kind = 0
        self._size = 0
        self._start = 0
        self._base: bytes | int | None = None
        self._content: bytearray | None = None
        self._inflated = 0
        self._by_id: dict[str, tuple[str, ...]] = {}
        self._texts: dict[str, bytes] = {}
        self._texts_bytes = 0
        self._ids_by_offset: dict[int, str] = {}
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Read on. UntrustedInputError if this is no pack."""
        if self.complete:
            return
        self._buffer += data
        if self._objects_left is None and not self._read_header():
            return
        while self._objects_left:
            if self._stream is None and not self._begin_object():
                return
            if not self._inflate():
                return
        self.complete = True

    @property
    def count(self) -> int:
        """How many commits have been read."""
        return len(self._by_id)

    def links(self, new: str, old: str) -> bool:
        """Whether `new` follows `old` by the commits of this pack."""
        seen, waiting = {new}, [new]
        while waiting:
            for parent in self._by_id.get(waiting.pop(), ()):
                if parent == old:
                    return True
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
        return False

    def _read_header(self) -> bool:
        if len(self._buffer) < _HEADER_BYTES:
            return False
        if self._buffer[:4] != b"PACK" or int.from_bytes(self._buffer[4:8], "big") not in (2, 3):
            raise UntrustedInputError("what follows the commands is no pack")
        self._objects_left = int.from_bytes(self._buffer[8:12], "big")
        self._consume(_HEADER_BYTES)
        return True

    def _begin_object(self) -> bool:
        """Read an object's header: kind, size, base. False if it is not all there."""
        at, buffer = 0, self._buffer
        if not buffer:
            return False
        byte = buffer[at]
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 0x80:
            at += 1
            if at >= len(buffer):
                return False
            byte = buffer[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise UntrustedInputError("an object of the pack has an impossible size")
        at += 1
        base: bytes | int | None = None
        if kind == _OFS_DELTA:
            distance = -1
            while True:
                if at >= len(buffer):
                    return False
                byte = buffer[at]
                at += 1
                distance = ((distance + 1) << 7) | (byte & 0x7F)
                if not byte & 0x80:
                    break
                if at > 32:
                    raise UntrustedInputError("an object of the pack has an impossible base")
            base = self._position - distance
        elif kind == _REF_DELTA:
            if len(buffer) < at + self._id_bytes:
                return False
            base = bytes(buffer[at : at + self._id_bytes])
            at += self._id_bytes
        elif kind not in (1, 2, 3, 4):
            raise UntrustedInputError("the pack holds an unknown kind of object")
        self._kind, self._size, self._base, self._start = kind, size, base, self._position
        keeps = kind == _COMMIT or self._base_text() is not None
        self._content = bytearray() if keeps and size <= COMMIT_BYTES else None
        self._stream = zlib.decompressobj()
        self._inflated = 0
        self._consume(at)
        return True

    def _inflate(self) -> bool:
        """Read an object's content. False if it is not all there."""
        stream = self._stream
        if stream is None:
            return True
        try:
            while not stream.eof and (self._buffer or stream.unconsumed_tail):
                # Not much more than this object needs: what is left over would be copied for each of them.
                given = bytes(self._buffer[: min(_INFLATE_BYTES, self._size - self._inflated + 64)])
                part = stream.decompress(given, _INFLATE_BYTES)
                # At its end zlib tells what is left over in both.
                used = len(given) - len(stream.unused_data if stream.eof else stream.unconsumed_tail)
                self._consume(used)
                self._inflated += len(part)
                if self._inflated > self._size:
                    raise UntrustedInputError("an object of the pack is larger than it says")
                if self._content is not None:
                    self._content += part
                if not used and not part:
                    break
        except zlib.error:
            raise UntrustedInputError("an object of the pack cannot be read") from None
        if not stream.eof:
            return False
        if self._inflated != self._size:
            raise UntrustedInputError("an object of the pack is smaller than it says")
        self._finish()
        return True

    def _finish(self) -> None:
        content, self._stream = self._content, None
        if self._objects_left is not None:
            self._objects_left -= 1
        if content is None or len(self._by_id) >= COMMITS_LIMIT:
            return
        text = bytes(content)
        if self._kind != _COMMIT:
            base = self._base_text()
            if base is None:
                return
            text = _patched(base, text)
        self._keep(text)

    def _keep(self, text: bytes) -> None:
        head = b"commit %d\0" % len(text)
        name = self._hash(head + text, usedforsecurity=False).hexdigest()
        self._by_id[name] = _parents(text)
        self._texts_bytes += len(text)
        if self._texts_bytes <= TEXTS_BYTES:
            self._texts[name] = text
        self._ids_by_offset[self._start] = name

    def _base_text(self) -> bytes | None:
        """The commit that this object is a difference to, if it was one of this pack."""
        if isinstance(self._base, bytes):
            return self._texts.get(self._base.hex())
        if isinstance(self._base, int):
            return self._texts.get(self._ids_by_offset.get(self._base, ""))
        return None

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._position += count


def _parents(commit: bytes) -> tuple[str, ...]:
    """Its parents as git reads them: right behind the tree. A "parent" further down is none (commit.c)."""
    tree, *lines = commit.split(b"\n\n", 1)[0].split(b"\n")
    if not tree.startswith(b"tree "):
        return ()
    parents = takewhile(lambda line: line.startswith(b"parent "), lines)
    return tuple(line[7:].decode("ascii", "replace") for line in parents)


def _patched(base: bytes, delta: bytes) -> bytes:
    """Apply a difference (gitformat-pack(5), "Deltified representation")."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while at < len(delta) and shift < 64:
            byte = delta[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
        raise UntrustedInputError("a difference in the pack cannot be read")

    number()
    size = number()
    result = bytearray()
    while at < len(delta) and len(result) <= min(size, COMMIT_BYTES):
        code = delta[at]
        at += 1
        if code & 0x80:
            fields = []
            for bit in range(7):
                byte = 0
                if code >> bit & 1:
                    byte = delta[at] if at < len(delta) else 0
                    at += 1
                fields.append(byte)
            offset = int.from_bytes(bytes(fields[:4]), "little")
            length = int.from_bytes(bytes(fields[4:]), "little") or 0x10000
            result += base[offset : offset + length]
        elif code:
            result += delta[at : at + code]
            at += code
        else:
            raise UntrustedInputError("a difference in the pack cannot be read")
    if len(result) != size:
        raise UntrustedInputError("a difference in the pack has another size than it says")
    return bytes(result)
