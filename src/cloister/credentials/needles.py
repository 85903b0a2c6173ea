"""Many byte strings, looked for at once: what passes through the gateway is searched for all spellings of all values.

The Aho-Corasick search of ahocorasick_rs reads 10 GB/s whatever their number; `in` needs a pass for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ahocorasick_rs import BytesAhoCorasick, MatchKind


class Needles:
    """Some byte strings, the longest first. `longest` is that one's length in bytes, 1 if there are none."""

    __slots__ = ("_all", "_search", "longest")

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._all = tuple(sorted(dict.fromkeys(needles), key=len, reverse=True))
        self._search = BytesAhoCorasick(self._all, matchkind=MatchKind.LeftmostLongest) if self._all else None
        self.longest = len(self._all[0]) if self._all else 1

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all)

    def any_in(self, data: bytes) -> bool:
        """Whether one of them stands in the data."""
        return self._search is not None and bool(self._search.find_matches_as_indexes(data))
