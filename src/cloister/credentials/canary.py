"""Canaries: worthless credentials that lie where real ones would, so that whoever sends one gives itself away.

Rule 1: what is looked for is every way of writing that `placeholder.Scanner` knows, and of each canary also
        hexadecimal, reversed, and base64 within base64: `needles`.
Rule 2: in a DNS name, which holds 63 characters a label and folds case, a piece of PIECE_BYTES counts as well.
Rule 3: a canary is bound to no host: on its way anywhere it stops the request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence, Set

from cloister.credentials.placeholder import stable_base64
from cloister.types import Deny

RULE_PREFIX = "canary:"  # of the rule that a refusal names; then the canary's name
PIECE_BYTES = 9  # of a canary, whatever its spelling: 72 bits are no coincidence
_SPELLING = "#"
_NO_SEPARATOR = re.compile(r"[^a-z0-9]")


def needles(canaries: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """What a `Scanner` is to look for. `canaries`: name → the texts that give it away."""
    found: dict[str, bytes] = {}
    for name, texts in canaries.items():
        spelled = [way for text in texts for way in _spellings(text.encode())]
        found |= {f"{RULE_PREFIX}{name}{_SPELLING}{index}": way for index, way in enumerate(spelled)}
    return found


def names(found: Iterable[str]) -> tuple[str, ...]:
    """The names of the canaries among what a `Scanner` has found."""
    keys = {key.partition(_SPELLING)[0] for key in found if key.startswith(RULE_PREFIX)}
    return tuple(sorted(key.removeprefix(RULE_PREFIX) for key in keys))


def rule(canaries: Iterable[str]) -> str:
    """The rule id of a refusal because of these canaries."""
    return RULE_PREFIX + ",".join(canaries)


def of_rule(rule_id: str | None) -> tuple[str, ...]:
    """The canaries that a refusal's rule names; none if it is about something else."""
    if rule_id is None or not rule_id.startswith(RULE_PREFIX):
        return ()
    return tuple(rule_id.removeprefix(RULE_PREFIX).split(","))


def denial(found: Set[str], target: str) -> Deny | None:
    """The refusal that says so, if there is a canary among what was found."""
    planted = names(found)
    if not planted:
        return None
    quoted = ", ".join(f'"{name}"' for name in planted)
    return Deny(reason=f'planted credentials ({quoted}) were on their way to "{target}"', rule=rule(planted))


def in_names(untrusted_names: Iterable[str], canaries: Mapping[str, Sequence[str]]) -> Mapping[str, Set[str]]:
    """Which canaries stand, whole or in pieces, in DNS names: canary → those names."""
    pieces = {
        piece: name for name, texts in canaries.items() for text in texts for piece in _pieces(text.encode())
    }
    lengths = sorted({len(piece) for piece in pieces})
    found: dict[str, set[str]] = {}
    for untrusted in untrusted_names:
        folded = _NO_SEPARATOR.sub("", untrusted.lower())
        for length in lengths:
            for start in range(len(folded) - length + 1):
                name = pieces.get(folded[start : start + length])
                if name is not None:
                    found.setdefault(name, set()).add(untrusted)
    return found


def _spellings(text: bytes) -> list[bytes]:
    """Beside what the scanner makes of a text itself."""
    hexadecimal = text.hex()
    return [text, hexadecimal.encode(), hexadecimal.upper().encode(), text[::-1], *stable_base64(text)]


def _pieces(text: bytes) -> set[str]:
    """How pieces of a text look in a name, letters and digits only."""
    found = set()
    for start in range(len(text) - PIECE_BYTES + 1):
        piece = text[start : start + PIECE_BYTES]
        base32 = base64.b32encode(piece).decode()
        # The last characters of a piece in base32 or base64 hold bits of what follows it.
        ways = {piece.decode("latin-1"), piece.hex(), base32[: PIECE_BYTES * 8 // 5]}
        ways |= {way.decode() for way in stable_base64(piece)}
        found |= {_NO_SEPARATOR.sub("", way.lower()) for way in ways}
    return {way for way in found if len(way) >= PIECE_BYTES}
