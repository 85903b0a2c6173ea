"""Many byte strings, looked for at once: what passes through the gateway is searched for all spellings of all values.

`in` needs a pass for each. The search of ahocorasick_rs compares many bytes at once for up to some 24 of them and reads
10 GB/s; for more it is twenty times slower. So there are several searches, each of a few.

Of texts that may be broken into lines, pieces are looked for (`broken.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloister.credentials.broken import Broken
from cloister.credentials.search import search_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

_AT_ONCE = 22
_START = 3  # bytes by which the beginning of a needle is looked for


class Needles:
    """Some byte strings, the longest first, and texts in base64 that may be broken into lines.

    `longest` is the longest string's length in bytes, 1 if there are none.
    """

    __slots__ = (
        "_all",
        "_begin",
        "_broken",
        "_overlapping",
        "_searched",
        "_searches",
        "_shorter",
        "_starting",
        "longest",
    )

    def __init__(self, needles: Iterable[bytes], *, base64: Iterable[bytes] = ()) -> None:
        self._all = tuple(sorted(dict.fromkeys(needles), key=len, reverse=True))
        self._broken = Broken(base64)
        self._searched = (*self._all, *self._broken.pieces)
        groups = -(-len(self._searched) // _AT_ONCE)
        # Each with some of every kind: three first bytes or fewer, and it would look at every "%" of the data.
        self._searches = [search_for(self._searched[group::groups], longest=True) for group in range(groups)]
        self._overlapping: BytesAhoCorasick | None = None  # made when something has been found: seldom
        self.longest = len(self._all[0]) if self._all else 1
        self._starting: dict[bytes, list[bytes]] = {}
        for needle in self._all:
            self._starting.setdefault(needle[:_START], []).append(needle)
        whole = [start for start in self._starting if len(start) == _START]
        self._begin = search_for(whole) if whole else None
        self._shorter = frozenset(needle[:length] for needle in self._all for length in range(1, _START))

    def __iter__(self) -> Iterator[bytes]:
        yield from self._all
        yield from self._broken

    def any_in(self, data: bytes) -> bool:
        """Whether one of them may stand in the data."""
        return any(search.find_matches_as_indexes(data) for search in self._searches)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where they stand, from the left: begin and end of each; those that overlap or touch are one."""
        if not self.any_in(data):
            return []
        if self._overlapping is None:
            self._overlapping = search_for(self._searched)
        found: list[tuple[int, int]] = []
        pieces: list[tuple[int, int]] = []
        for number, begin, end in self._overlapping.find_matches_as_indexes(data, overlapping=True):
            (found if number < len(self._all) else pieces).append((begin, end))
        if pieces:
            found += self._broken.spans(data, sorted(pieces))
        return joined(found)

    def begun(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of one that is longer than they are."""
        return max(self._begun(data), self._broken.begun(data))

    def _begun(self, data: bytes) -> int:
        tail = data[-(self.longest - 1) :] if self.longest > 1 else b""
        if self._begin is not None:
            for _, at, _ in self._begin.find_matches_as_indexes(tail, overlapping=True):
                begun = tail[at:]
                for needle in self._starting[begun[:_START]]:
                    if len(needle) <= len(begun):
                        break  # the others are no longer
                    if needle.startswith(begun):
                        return len(begun)
        for length in range(min(_START - 1, len(tail)), 0, -1):
            if tail[-length:] in self._shorter:
                return length
        return 0


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same places, from the left; those that overlap or touch are one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found
