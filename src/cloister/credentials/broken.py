"""Base64 that is broken into lines (MIME's 76 characters, PEM's 64, GitHub's 60), wherever the breaks stand.

A break can stand at any place, so a text has as many spellings as characters, too many to look for. But of two
neighbouring pieces that are together no longer than a line, one is whole: those are looked for (`pieces`), and only
around one that was found is the text looked for without its breaks.

Rule 1: a break is one line ending, as it is or as JSON escapes it, and the blanks behind it. An empty line ends a text:
        what server-sent events end with must not wait for what comes next.
Rule 2: a text begins with three characters in one line. Of one that is broken before, the rest is a text too, so at
        most two characters stay; else every line that ends with a fitting letter would have to wait.
Rule 3: what is a match is decided by its own bytes alone, so the same is found however a stream is cut.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from cloister.credentials.search import search_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

LINE_LEAST = 32  # characters of a line
_PIECE = LINE_LEAST // 2
_BREAK_BYTES = 16  # of each line's end, on average: the longer ones are no line breaks any more
_START = 3

_BREAKS = re.compile(rb"(?:(?:\r?\n|(?:\\r)?\\n)[ \t]*)+")
_ENDING = re.compile(rb"\n|\\n")
_BEGINNINGS = (b"\r", b"\\", b"\\r")  # of a break
_BEGUN = re.compile(rb"(?:\r|\\|\\r|\\r\\)\Z")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_LETTERS = frozenset(_ALPHABET[at : at + 1] for at in range(len(_ALPHABET)))

Span = tuple[int, int]


class Broken:
    """Some texts in base64. `pieces` are those of which one stands wherever a text does."""

    __slots__ = ("_begin", "_reach", "_search", "_starting", "_texts", "pieces")

    def __init__(self, texts: Iterable[bytes]) -> None:
        whole = tuple(dict.fromkeys(texts))
        self.pieces = tuple(dict.fromkeys(piece for text in whole for piece in _pieces(text)))
        tails = {text[first:] for text in whole for first in range(_START)}
        self._texts = tuple(sorted(tails, key=lambda text: (-len(text), text)))
        longest = max(map(len, whole), default=0)
        self._reach = longest + _BREAK_BYTES * (2 + longest // LINE_LEAST)
        self._starting: dict[bytes, list[bytes]] = {}
        for text in self._texts:
            for length in range(1, _START + 1):
                self._starting.setdefault(text[:length], []).append(text)
        starts = [start for start in self._starting if len(start) == _START]
        self._begin = search_for(starts) if starts else None
        self._search: BytesAhoCorasick | None = None  # made when a piece has been found: seldom

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._texts)

    def spans(self, data: bytes, pieces: Sequence[Span]) -> Iterator[Span]:
        """Where texts stand, with their breaks; `pieces` is where pieces do, from the left."""
        if self._search is None:
            self._search = search_for(self._texts)
        for begin, end in _windows(pieces, self._reach):
            lines = _Lines(data[begin:end])
            for _, at, behind in self._search.find_matches_as_indexes(lines.joined, overlapping=True):
                span = (begin + lines.place(at), begin + lines.place(behind - 1) + 1)
                if span[1] - span[0] <= self._reach and lines.in_one(at) and _holds(span, pieces):
                    yield span

    def begun(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of a text that is longer than they are."""
        if self._begin is None:
            return 0
        tail = data[1 - self._reach :]
        before = tail.rstrip(_ALPHABET)
        if not _may_join(tail, before):  # nearly always: no line but the last can belong to it
            tail = tail[len(before) :]
        if not tail:
            return 0
        lines = _Lines(tail[: found.start()] if (found := _BEGUN.search(tail, len(tail) - 3)) else tail)
        for _, at, _ in self._begin.find_matches_as_indexes(lines.joined, overlapping=True):
            begun = lines.joined[at:]
            for text in self._starting[begun[:_START]]:
                if len(text) <= len(begun):
                    break  # the others are no longer
                if text.startswith(begun) and lines.in_one(at):
                    return len(tail) - lines.place(at)
        for length in range(min(_START - 1, len(tail)), 0, -1):
            if tail[-length:] in self._starting:
                return length
        return 0


def _may_join(tail: bytes, before: bytes) -> bool:
    """Whether a text may go over a break to the end of `tail`; `before` is what stands before its last letters."""
    if tail.endswith(_BEGINNINGS) or before.endswith(b"\\"):
        return True
    line = before.rstrip(b" \t")
    if line.endswith(b"\n"):
        line = line[:-1].removesuffix(b"\r")
        return line[-1:] in _LETTERS or line.endswith(b"\\")
    return line.endswith(b"\\n") and line != before


class _Lines:
    """Some bytes, joined where they are broken once."""

    __slots__ = ("_places", "_starts", "joined")

    def __init__(self, data: bytes) -> None:
        self._starts, self._places = [0], [0]  # of each line: in `joined`, and in the data
        if b"\n" not in data and b"\\n" not in data:
            self.joined = data
            return
        lines, at, size = [], 0, 0
        for found in _BREAKS.finditer(data):
            once = len(_ENDING.findall(found[0])) == 1
            lines.append(data[at : found.start() if once else found.end()])
            at = found.end()
            size += len(lines[-1])
            self._starts.append(size)
            self._places.append(at)
        self.joined = b"".join([*lines, data[at:]])

    def place(self, at: int) -> int:
        """Where in the data this byte of `joined` is."""
        line = bisect_right(self._starts, at) - 1
        return self._places[line] + at - self._starts[line]

    def in_one(self, at: int) -> bool:
        """Whether what begins there begins in one line."""
        return self.place(at + _START - 1) - self.place(at) == _START - 1


def _pieces(text: bytes) -> tuple[bytes, bytes]:
    length = min(len(text) // 2, _PIECE)
    return text[:length], text[length : 2 * length]


def _windows(pieces: Sequence[Span], reach: int) -> list[Span]:
    """What is near to them."""
    found: list[Span] = []
    for begin, end in pieces:
        first, last = max(0, begin - reach), end + reach
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _holds(span: Span, pieces: Sequence[Span]) -> bool:
    """Whether one of the pieces stands in it."""
    for at in range(bisect_left(pieces, (span[0], 0)), len(pieces)):
        if pieces[at][0] >= span[1]:
            return False
        if pieces[at][1] <= span[1]:
            return True
    return False
