"""Bytes in pieces: wires that are fed from memory, and how to cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any, TypeVar

from hypothesis import strategies as some

T = TypeVar("T")
Parts = list[bytes]


class Fed:
    """A `wire.Wire` whose other side has said all it will say, in these parts."""

    truncated = False
    descriptor = -1

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = deque(part for part in parts if part)
        self.buffer = bytearray()
        self.sent = bytearray()

    async def more(self) -> bool:
        if not self._parts:
            return False
        self.buffer += self._parts.popleft()
        return True

    async def send(self, data: bytes) -> None:
        self.sent += data

    async def finish(self) -> None:
        return

    def stale(self) -> bool:
        return False

    def close(self) -> None:
        return

    def reset(self) -> None:
        return


def run(work: Coroutine[Any, Any, T]) -> T:
    """On a loop of its own, within a time that only a hang takes."""

    async def main() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(main())


def cut(data: bytes, cuts: Iterable[int]) -> Parts:
    """`data` in parts that end at these places (taken modulo its length)."""
    edges = sorted({at % (len(data) + 1) for at in cuts} | {0, len(data)})
    return [data[first:last] for first, last in pairwise(edges)]


def byte_by_byte(data: bytes) -> Parts:
    return [data[at : at + 1] for at in range(len(data))]


CUTS = some.lists(some.integers(min_value=0, max_value=1 << 16), max_size=6)


def mutated(seeds: some.SearchStrategy[bytes], pieces: Iterable[bytes]) -> some.SearchStrategy[bytes]:
    """Seeds with up to four places replaced, deleted or repeated, or with a tricky piece put in."""
    piece = some.one_of(some.sampled_from(list(pieces)), some.binary(min_size=1, max_size=3))
    change = some.tuples(some.integers(min_value=0, max_value=1 << 16), some.integers(0, 12), piece)
    return some.builds(_changed, seeds, some.lists(change, max_size=4))


def _changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for place, kind, piece in changes:
        at = place % (len(data) + 1)
        if kind < 6:
            data = data[:at] + piece + data[at:]
        elif kind < 9:
            data = data[:at] + data[at + len(piece) :]
        else:
            data = data[:at] + piece + data[at + len(piece) :]
    return data


def heard_alike(hear: Callable[[Parts], T], data: bytes, cuts: list[int]) -> T:
    """What is heard of the data, however it is cut."""
    whole = hear([data])
    assert hear(cut(data, cuts)) == whole
    assert hear(byte_by_byte(data)) == whole
    return whole
