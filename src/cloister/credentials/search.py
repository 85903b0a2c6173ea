"""One search for several byte strings at once (ahocorasick_rs). It is loaded for the first one: a sandbox without
credentials has nothing to look for, and is 0.6 MB smaller without it.
"""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick


def search_for(needles: Sequence[bytes], *, longest: bool = False) -> BytesAhoCorasick:
    """Finds every occurrence, or with `longest` the longest of those that begin at a place, from the left."""
    from ahocorasick_rs import BytesAhoCorasick, MatchKind

    return BytesAhoCorasick(needles, matchkind=MatchKind.LeftmostLongest if longest else MatchKind.Standard)
