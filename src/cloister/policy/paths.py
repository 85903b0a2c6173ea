"""Path globs of rules, and the canonical paths that they are matched against.

Rule 1: `*` stands for characters within a segment, `**` alone between slashes for segments (at the end: at
        least one), everything else for itself. Matching is anchored at both ends and linear per `**`.
Rule 2: a path that servers may read in two ways (dot segments, encoded separators, `;`, `//`, `\\`, needless
        or double escapes, what is not UTF-8 …) has no canonical form: no path rule ever covers it (ATTACKS HTTP-4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import eq
from urllib.parse import unquote_to_bytes

from cloister.errors import UntrustedInputError
from cloister.policy.match import PatternError

_HEX_DIGITS = frozenset("0123456789ABCDEFabcdef")
# RFC 3986 section 2.3: escaping these changes nothing for a server, so it only serves to dodge a rule.
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_UNSAFE_ESCAPED = frozenset("/\\%;?#")


def canonical_path(untrusted_path: str) -> str:
    """The path with upper-case escapes. UntrustedInputError if it can be read in two ways."""
    if not untrusted_path.startswith("/"):
        raise UntrustedInputError("the path does not start with '/'")
    if not untrusted_path.isascii() or any(c <= " " or c == "\x7f" for c in untrusted_path):
        raise UntrustedInputError("the path holds a space, control byte or non-ASCII character")
    for sign in ("\\", ";", "#", "?", "//"):
        if sign in untrusted_path:
            raise UntrustedInputError(f"the path holds {sign!r}")
    if any(segment in (".", "..") for segment in untrusted_path.split("/")):
        raise UntrustedInputError("the path holds a '.' or '..' segment")
    return _with_checked_escapes(untrusted_path)


def parse_glob(text: str) -> str:
    """A path glob in canonical form; PatternError if it could never match a canonical path."""
    if not text.startswith("/"):
        raise PatternError("a path glob starts with '/'", expected='a glob such as "/repos/acme/**"')
    if any("**" in segment and segment != "**" for segment in text.split("/")):
        raise PatternError(
            '"**" must stand alone between slashes', expected='"/repos/**" or "/repos/*/issues"'
        )
    try:
        return canonical_path(text)
    except UntrustedInputError as error:
        raise PatternError(
            f"{error}, so no request would ever match", expected='a plain path, as in "/repos/acme/**"'
        ) from None


def covers_path(glob: str, path: str) -> bool:
    """Whether a canonical path matches a canonical glob, as a whole."""
    return _segments_match(glob.split("/")[1:], path.split("/")[1:])


def globs_overlap(one: str, other: str) -> bool:
    """Whether some path matches both canonical globs."""
    return _meet(_parts(one), _parts(other), "**", lambda a, b: _meet(a, b, "*", eq))


def _parts(glob: str) -> list[str]:
    """The segments, with a "**" at the end, which stands for one at least, as "*" and any more."""
    *before, last = glob.split("/")[1:]
    return [*before, "*", "**"] if last == "**" else [*before, last]


def _meet(one: Sequence[str], other: Sequence[str], star: str, meets: Callable[[str, str], bool]) -> bool:
    """Whether some sequence matches both, where `star` stands for any number of items (also none)."""
    row = [True] + [False] * len(other)  # row[j]: one[:i] and other[:j] can stand for the same
    for j, theirs in enumerate(other):
        row[j + 1] = row[j] and theirs == star
    for mine in one:
        above, row = row, [row[0] and mine == star] + [False] * len(other)
        for j, theirs in enumerate(other):
            if star in (mine, theirs):  # it stands for nothing, or for the other's last item too
                row[j + 1] = above[j + 1] or row[j]
            else:
                row[j + 1] = above[j] and meets(mine, theirs)
    return row[-1]


def _segments_match(globs: Sequence[str], segments: Sequence[str]) -> bool:
    """Dynamic programming over the segments, so that many `**` cannot make it slow."""
    reachable = [True] + [False] * len(segments)  # reachable[i]: the globs so far match segments[:i]
    for number, glob in enumerate(globs):
        if glob == "**":
            least = 1 if number == len(globs) - 1 else 0
            first = reachable.index(True) + least if True in reachable else len(segments) + 1
            reachable = [i >= first for i in range(len(segments) + 1)]
        else:
            matched = (
                before and _segment_matches(glob, s) for before, s in zip(reachable, segments, strict=False)
            )
            reachable = [False, *matched]
    return reachable[-1]


def _segment_matches(glob: str, segment: str) -> bool:
    """Greedy leftmost matching of the literal pieces between the stars."""
    first, *rest = glob.split("*")
    if not rest:
        return glob == segment
    *middle, last = rest
    if len(segment) < len(first) + len(last) or not segment.startswith(first) or not segment.endswith(last):
        return False
    position, end = len(first), len(segment) - len(last)
    for piece in middle:
        found = segment.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def _with_checked_escapes(path: str) -> str:
    head, *escaped = path.split("%")
    parts = [head]
    for piece in escaped:
        digits = piece[:2]
        if len(digits) < 2 or not _HEX_DIGITS.issuperset(digits):
            raise UntrustedInputError("the path holds a broken escape")
        character = chr(int(digits, 16))
        if character in _UNRESERVED or character in _UNSAFE_ESCAPED or character < " " or character == "\x7f":
            raise UntrustedInputError(f"the path holds the escape '%{digits}'")
        parts.append(digits.upper() + piece[2:])
    whole = "%".join(parts)
    try:
        unquote_to_bytes(whole).decode()  # strictly: no overlong form of "." or "/" (RFC 3629, section 10)
    except UnicodeDecodeError:
        raise UntrustedInputError("the path's escapes are not UTF-8") from None
    return whole
