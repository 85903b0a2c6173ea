"""Pushes that are made to be judged wrongly, or to cost the judge more than their sender."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
import zlib

import pytest

from cloister.credentials import decode
from cloister.credentials.git_pack import Commits
from cloister.credentials.git_push import PushJudge, pkt
from cloister.errors import UntrustedInputError
from cloister.types import PushRule

AGENT = PushRule(refs=("refs/heads/agent/*",))
WHO = b"a <a@example.test> 1700000000 +0000"
TREE, OLD = b"4b825dc642cb6eb9a060e54bf8d69288fbee4904", b"1" * 40


def named(text: bytes, kind: bytes = b"commit") -> str:
    return hashlib.sha1(kind + b" %d\0" % len(text) + text, usedforsecurity=False).hexdigest()


def pack(*texts: bytes, kind: int = 1) -> bytes:
    body = b"PACK" + (2).to_bytes(4, "big") + len(texts).to_bytes(4, "big")
    for text in texts:
        size = len(text)
        first, size = kind << 4 | size & 15, size >> 4
        header = bytearray()
        while size:
            header.append(first | 0x80)
            first, size = size & 0x7F, size >> 7
        body += bytes(header) + bytes([first]) + zlib.compress(text)
    return body + b"\0" * 20


def push(new: str, body: bytes, *, old: bytes = OLD, ref: str = "refs/heads/agent/one") -> bytes:
    return pkt(old + f" {new} {ref}".encode() + b"\0report-status") + b"0000" + body


def judged(body: bytes, rule: PushRule = AGENT) -> PushJudge:
    judge = PushJudge(rule)
    if not judge.feed(body):
        judge.end()
    return judge


def test_a_commit_that_follows_passes() -> None:
    """The positive control of the next test."""
    text = b"tree " + TREE + b"\nparent " + OLD + b"\nauthor " + WHO + b"\ncommitter " + WHO + b"\n\nx\n"
    assert not judged(push(named(text), pack(text))).refused


@pytest.mark.parametrize(
    "head",
    [
        b"tree " + TREE + b"\nauthor " + WHO + b"\ncommitter " + WHO + b"\nparent " + OLD,
        b"tree " + TREE + b"\nauthor " + WHO + b"\nparent " + OLD + b"\ncommitter " + WHO,
        b"parent " + OLD + b"\ntree " + TREE + b"\nauthor " + WHO + b"\ncommitter " + WHO,
        b"tree " + TREE + b"\nauthor " + WHO + b"\ncommitter " + WHO + b"\ngpgsig x\nparent " + OLD,
        b"tree " + TREE + b"\nx y\nparent " + OLD + b"\nauthor " + WHO + b"\ncommitter " + WHO,
    ],
)
def test_a_line_that_git_takes_for_no_parent_links_nothing(head: bytes) -> None:
    """git reads parents right behind the tree only: the rest would make a forced push look like none."""
    text = head + b"\n\nx\n"
    assert judged(push(named(text), pack(text))).refused


@pytest.mark.parametrize(
    "head",
    [
        b"0x5f",
        b" 05f",
        b"+05f",
        b"0_5f",
        b"-05f",
        b"\xef\xbc\x90f",
        b"0001",
        b"0002",
        b"0003",
        b"0004",
        b"fff5",
    ],
)
def test_a_length_that_git_would_not_read_is_refused(head: bytes) -> None:
    line = OLD + b" " + OLD + b" refs/heads/agent/one\0report-status"
    with pytest.raises(UntrustedInputError):
        judged(head + line + b"\n" * 40 + b"0000")


@pytest.mark.parametrize(
    "lines",
    [
        [OLD + b" " + OLD + b" refs/heads/agent/a", OLD + b" " + OLD + b" refs/heads/agent/b\0push-options"],
        [OLD + b" " + OLD + b" refs/heads/agent/a", b"push-cert\0x"],
        [OLD + b"  " + OLD + b" refs/heads/agent/a"],
        [OLD.replace(b"1", b"A") + b" " + OLD + b" refs/heads/agent/a"],
        [OLD + b" " + OLD + b"11 refs/heads/agent/a"],
    ],
)
def test_commands_that_another_reader_may_take_otherwise(lines: list[bytes]) -> None:
    with pytest.raises(UntrustedInputError):
        judged(b"".join(pkt(line) for line in lines) + b"0000" + pack())


def test_commands_behind_the_flush_are_no_commands() -> None:
    body = push("2" * 40, b"", old=b"0" * 40) + pkt(OLD + b" " + OLD + b" refs/heads/main") + b"0000"
    assert judged(body).decided  # git reads a pack there, and fails
    assert len(judged(body).commands) == 1


def test_large_commits_do_not_fill_the_memory() -> None:
    judge = Commits()
    head = b"tree " + TREE + b"\nauthor " + WHO + b"\ncommitter " + WHO + b"\n\n"
    body = pack(*(head + b"%d" % number + bytes(900_000) for number in range(90)))
    tracemalloc.start()
    judge.feed(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert judge.complete
    assert peak < 40 << 20


def test_many_refs_over_a_long_history_are_judged_in_time() -> None:
    texts, parent = [], b"2" * 40
    for number in range(4000):
        text = b"tree %b\nparent %b\nauthor %b\ncommitter %b\n\n%d" % (TREE, parent, WHO, WHO, number)
        texts.append(text)
        parent = named(text).encode()
    lines = [OLD + b" " + parent + b" refs/heads/agent/%d" % number for number in range(900)]
    lines[0] += b"\0report-status"
    body = b"".join(map(pkt, lines)) + b"0000" + pack(*texts)
    judge, begun = PushJudge(AGENT), time.process_time()
    try:
        for at in range(0, len(body), 16384):
            judge.feed(body[at : at + 16384])
        judge.end()
    except UntrustedInputError:
        pass
    assert time.process_time() - begun < 2.0


def test_endless_lines_before_the_commands_end() -> None:
    judge = PushJudge(AGENT)
    line = pkt(b"shallow " + OLD)
    with pytest.raises(UntrustedInputError):
        for _ in range(100):
            judge.feed(line * 5000)


def test_endless_push_options_end() -> None:
    judge = PushJudge(PushRule(refs=("refs/heads/agent/*",), force=True))
    judge.feed(pkt(OLD + b" " + b"2" * 40 + b" refs/heads/agent/a\0push-options") + b"0000")
    if not judge.decided:
        with pytest.raises(UntrustedInputError):
            for _ in range(100):
                judge.feed(pkt(b"x") * 20000)


def test_many_small_objects_cost_what_they_weigh() -> None:
    judge, body = Commits(), pack(*(b"x" for _ in range(30_000)), kind=3)
    begun = time.process_time()
    for at in range(0, len(body), 1 << 18):
        judge.feed(body[at : at + (1 << 18)])
    assert judge.complete
    assert time.process_time() - begun < 0.5


def test_a_large_object_is_read() -> None:
    for size in (70_000, 200_000, 1_500_000):
        judge = Commits()
        judge.feed(pack(bytes(size), b"x", kind=3))
        assert judge.complete


@pytest.mark.parametrize("size", [(1 << 18) + 100, 3 * (1 << 18) + 3])
def test_bare_deflate_gives_all_of_it(size: int) -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = coder.compress(b"a" * size) + coder.flush()
    decoder = decode.decoder(b"deflate")
    assert decoder is not None
    assert sum(map(len, decoder.feed(raw))) == size
    decoder.end()
