"""What the container says is judged: shapes, sizes, and what may stand on a terminal."""

from __future__ import annotations

import pytest

from cloister.gateway.authority import Authority
from cloister.outpost import heard
from cloister.outpost.frames import FrameError, Message

PEM = Authority("test").pem.decode()


def test_anything_unknown_is_refused_by_default() -> None:
    with pytest.raises(FrameError):
        heard.said({"op": "say", "message": {"op": "listen"}})
    with pytest.raises(FrameError):
        heard.event({"op": "line", "event": {"kind": "connect", "sandbox": "another"}})


@pytest.mark.parametrize("kind", ["start", "end", "quarantine", "", None, 3])
def test_lines_that_are_the_sessions_to_write(kind: object) -> None:
    with pytest.raises(FrameError):
        heard.event({"event": {"kind": kind}})


@pytest.mark.parametrize(
    "fields",
    [{"port": "80"}, {"port": True}, {"host": 3}, {"host": None}, {"text": ["x"]}, {"unknown": "x"}, {"status": {}}],
)  # fmt: skip
def test_fields_of_another_type(fields: Message) -> None:
    with pytest.raises(FrameError):
        heard.event({"event": {"kind": "connect", **fields}})


def test_a_line_is_taken_as_it_is() -> None:
    event = heard.event({"event": {"kind": "connect", "host": "a.example", "port": 443, "duration_ms": 1.5}})
    assert (event.kind, event.host, event.port, event.duration_ms) == ("connect", "a.example", 443, 1.5)


def test_no_sentence_moves_a_cursor() -> None:
    said = heard.said({"message": {"op": "alarm", "text": "a\x1b[2Jb\r\u202e\nc" + "x" * 9000, "name": "n"}})
    assert set(said) == {"op", "text"}, "and nothing else goes with it"
    assert str(said["text"]).startswith("a\ufffd[2Jb\ufffd\ufffd\ncx")
    assert len(str(said["text"])) == heard.TEXT_LIMIT


def test_an_answer_is_fit_for_a_terminal() -> None:
    found = heard.answer({"pending": [{"name": "a\x1b", "since": 1.0}], "done": True})
    assert found == {"pending": [{"name": "a\ufffd", "since": 1.0}], "done": True}
    wrong: tuple[object, ...] = ([], "x", {"a": [[[[["deep"]]]]]})
    for bad in wrong:
        with pytest.raises(FrameError):
            heard.answer(bad)


def test_the_authority_is_one_certificate() -> None:
    assert heard.certificate({"pem": PEM}) == PEM.encode()
    for bad in (PEM + PEM, PEM[1:], PEM + "x", PEM.replace("M", "\x1b", 1), "", None, PEM.replace("CERTIFICATE", "PRIVATE KEY")):  # fmt: skip
        with pytest.raises(FrameError):
            heard.certificate({"pem": bad})


@pytest.mark.parametrize("value", [-1, 1 << 53, "3", True, None, 1.0])
def test_numbers(value: object) -> None:
    with pytest.raises(FrameError):
        heard.number({"n": value}, "n")
