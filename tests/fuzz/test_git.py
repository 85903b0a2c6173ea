"""A push's commands and pack: judged alike however they are cut, and never allowed by damage."""

from __future__ import annotations

import hashlib
import zlib

from hypothesis import given
from hypothesis import strategies as some

from cloister.credentials.git_pack import Commits
from cloister.credentials.git_push import PushJudge, pkt
from cloister.errors import UntrustedInputError
from cloister.types import PushRule
from tests.fuzz.streams import CUTS, Parts, heard_alike, mutated

OLD, NEW, NONE = "1" * 40, "2" * 40, "0" * 40
RULE = PushRule(refs=("refs/heads/agent/*",))
REFS = (
    "refs/heads/main",
    "refs/heads/agent/a",
    "refs/heads/agent/../main",
    "refs/tags/v1",
    "refs/heads/agent/b c",
)


def _object(kind: int, content: bytes) -> bytes:
    size, first = len(content) >> 4, (kind << 4) | (len(content) & 15)
    head = bytearray()
    while size:
        head.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes(head) + bytes([first]) + zlib.compress(content)


def _commit(parent: str) -> bytes:
    return f"tree {OLD}\nparent {parent}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx\n".encode()


def _pack(objects: list[bytes]) -> bytes:
    body = b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big") + b"".join(objects)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _push(commands: list[tuple[str, str, str]], objects: list[bytes]) -> bytes:
    lines = [f"{old} {new} {ref}".encode() for old, new, ref in commands]
    if lines:
        lines[0] += b"\0report-status side-band-64k"
    return b"".join(pkt(line) for line in lines) + b"0000" + _pack(objects)


PUSHES = some.builds(
    _push,
    some.lists(
        some.tuples(some.sampled_from([OLD, NONE]), some.sampled_from([NEW, NONE]), some.sampled_from(REFS)),
        max_size=3,
    ),
    some.lists(
        some.one_of(
            some.sampled_from([_object(1, _commit(OLD)), _object(1, _commit(NEW))]),
            some.binary(max_size=50).map(lambda data: _object(3, data)),
        ),
        max_size=3,
    ),
)


def judged(parts: Parts) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The refs that may be pushed and those that may not; None if it is no push."""
    judge = PushJudge(RULE)
    try:
        for part in parts:
            if judge.feed(part):
                break
        else:
            judge.end()
    except UntrustedInputError as error:
        assert str(error).isprintable()
        return None
    allowed = () if judge.refused else tuple(command.ref for command in judge.commands)
    return allowed, tuple(sorted(judge.refused))


@given(PUSHES, CUTS)
def test_a_push_is_judged_alike(push: bytes, cuts: list[int]) -> None:
    heard = heard_alike(judged, push, cuts)
    if heard is not None:
        assert all(ref == "refs/heads/agent/a" for ref in heard[0])


@given(
    mutated(
        PUSHES,
        (b"0000", b"0004", b"\0", b"refs/heads/main", b"push-cert", b"shallow ", b"ffff", OLD.encode()),
    ),
    CUTS,
)
def test_damage_allows_nothing_more(push: bytes, cuts: list[int]) -> None:
    """Where a pack ends in an error, a cut may let it come before or behind the decision."""
    heard_alike(judged, push, cuts)
    heard = judged([push])
    if heard is not None:
        assert all(ref.startswith("refs/heads/agent/") and ".." not in ref for ref in heard[0])


@given(
    mutated(some.just(_pack([_object(1, _commit(OLD)), _object(3, b"x" * 99)])), (b"\x78\x9c", b"\xff" * 4)),
    CUTS,
)
def test_packs(pack: bytes, cuts: list[int]) -> None:
    def read(parts: Parts) -> tuple[bool, int] | None:
        commits = Commits()
        try:
            for part in parts:
                commits.feed(part)
        except UntrustedInputError as error:
            assert str(error).isprintable()
            return None
        return commits.complete, commits.count

    heard_alike(read, pack, cuts)
