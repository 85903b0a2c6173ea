"""The origins' names and the bytes that are sent: what the clients inside and the origins outside agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

API = "api.soak.test"  # a bearer credential; HTTP/1.1 and HTTP/2
FAULT = "fault.soak.test"  # as API; what it answers breaks
CHAT = "chat.soak.test"  # the same credential; WebSocket
GIT = "git.soak.test"  # a Basic credential
RULE = "rule.soak.test"  # read because of its rule, GET and POST; no credential
SINK = "sink.soak.test"  # as RULE; reads slowly
HALF = "half.soak.test"  # as RULE; accepts and says nothing
SPLICE = "splice.soak.test"  # not decrypted
PLAIN = "plain.soak.test"  # HTTP
LINE = "line.soak.test"  # any protocol, port 2222
DEAD = "dead.soak.test"  # granted; nothing listens there
LOST = "lost.soak.test"  # granted; its name does not resolve
EVIL = "evil.soak.test"  # exists, and is not granted; nor is any name below it
LINE_PORT = 2222
SERVED_PORT = 3000  # in the sandbox, published

MASK = "****"
GREETING = b"hello from the line origin\n"
BLOCK_BYTES = 1 << 16


def bulk(name: str, size: int) -> Iterator[bytes]:
    """`size` bytes that only `name` has, block by block."""
    block = hashlib.sha256(name.encode()).digest() * (BLOCK_BYTES // 32)
    while size > 0:
        yield block[:size]
        size -= len(block)


def digest(name: str, size: int) -> str:
    """The SHA-256 of `bulk`."""
    sha = hashlib.sha256()
    for part in bulk(name, size):
        sha.update(part)
    return sha.hexdigest()
