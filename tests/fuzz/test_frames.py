"""What a gateway's container may say to the host: frames, however they come, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as some

from cloister.audit.log import line
from cloister.outpost import frames, heard
from cloister.outpost.frames import Data, FrameError, Frames
from tests.fuzz.streams import CUTS, cut, mutated

LIMIT_BYTES = 4096
TEXTS = some.text(max_size=20)
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | TEXTS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
WORDS = some.sampled_from(["op", "say", "line", "ready", "ask", "text", "name", "number", "event", "kind", "connect", "message",
                           "alarm", "said", "answer", "host", "port", "start", "pem", "\x1b[2J", "-----BEGIN CERTIFICATE-----\n"])  # fmt: skip
MESSAGES = some.dictionaries(
    WORDS, JSON | WORDS | some.dictionaries(WORDS, JSON | WORDS, max_size=4), max_size=5
)
PIECES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"M",
    b"D",
    b"{}",
    b"[]",
    b"\0\0\0\x02M{",
    b"\0\0\0\x05D\0\0\0\1",
    b"[" * 5000,
)
FRAMES = MESSAGES.map(lambda found: frames.message(dict(found))) | some.builds(
    frames.data, some.integers(0, 2**32 - 1), some.binary(max_size=50)
)


def read(parts: Sequence[bytes]) -> tuple[list[frames.Message | Data], str]:
    """Everything that comes out, and how it ended."""
    reader = Frames(limit_bytes=LIMIT_BYTES)
    out: list[frames.Message | Data] = []
    try:
        for part in parts:
            out.extend(reader.feed(part))
    except FrameError as error:
        return out, str(error)
    return out, "within" if reader.is_within else ""


@given(sent=some.lists(FRAMES, max_size=5), cuts=CUTS)
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(sent)
    out, end = read(cut(whole, cuts))
    assert end == ""
    again = [
        frames.data(one.stream, one.content) if isinstance(one, Data) else frames.message(one) for one in out
    ]
    assert again == sent


@given(data=mutated(some.lists(FRAMES, min_size=1, max_size=4).map(b"".join), PIECES), cuts=CUTS)
def test_any_bytes_are_frames_or_an_end_and_the_same_one_however_they_are_cut(
    data: bytes, cuts: list[int]
) -> None:
    whole = read([data])
    assert read(cut(data, cuts)) == whole
    assert read([bytes([one]) for one in data]) == whole


@given(message=MESSAGES)
def test_what_the_container_says_is_judged(message: dict[str, object]) -> None:
    """A line that is taken can be written; a sentence that is taken moves no cursor; all else is a FrameError."""
    with suppress(FrameError):
        written = line(heard.event(message), sandbox_id="x", seconds=0.0)
        assert json.loads(written)["event"] not in ("start", "end", "quarantine")
    with suppress(FrameError):
        said = heard.said(message)
        assert "\x1b" not in "".join(str(one) for name, one in said.items() if name in ("text", "name"))
    with suppress(FrameError):
        assert "\x1b" not in json.dumps(heard.answer(message.get("answer")), ensure_ascii=False)
    with suppress(FrameError):
        assert heard.certificate(message).isascii()


def test_a_length_beyond_the_limit_is_refused_at_its_head() -> None:
    """Not after so many bytes have been kept."""
    reader = Frames(limit_bytes=LIMIT_BYTES)
    try:
        list(reader.feed((LIMIT_BYTES + 2).to_bytes(4, "big") + b"M"))
    except FrameError as error:
        assert "bytes" in str(error)
    else:
        raise AssertionError("it is waited for")
