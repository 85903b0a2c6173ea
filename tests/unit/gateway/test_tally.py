"""A flood of lines is summed up, and nothing is lost from the sums."""

from __future__ import annotations

from cloister.audit.log import Event
from cloister.gateway import record
from cloister.gateway.record import Record
from cloister.gateway.tally import PLACES_LIMIT, Tally
from cloister.types import Deny
from tests.unit.gateway.harness import FakeLog


def _request(host: str = "a.example.com", sent_bytes: int = 3) -> Event:
    return Event(kind="request", host=host, port=80, rule="r", sent_bytes=sent_bytes, received_bytes=1)


def test_the_first_lines_are_written_as_they_are() -> None:
    tally = Tally(2)
    assert [tally.pass_on(_request()) for _ in range(2)] == [_request()] * 2
    assert not list(tally.owed())


def test_then_totals_are_told_and_no_byte_is_lost() -> None:
    tally = Tally(0)
    told = [line for line in (tally.pass_on(_request()) for _ in range(2345)) if line is not None]
    assert [line.sent_bytes for line in told] == [3, 30, 300, 3000, 6000]
    (last,) = tally.owed()
    assert (last.host, last.rule, last.sent_bytes, last.received_bytes) == ("a.example.com", "r", 7035, 2345)
    assert (last.reason or "").startswith("2345 more")
    assert not list(tally.owed())


def test_places_without_end_share_one_total() -> None:
    tally = Tally(0)
    for number in range(PLACES_LIMIT + 50):
        tally.pass_on(_request(f"n{number}.example.com"))
    lines = [line for line in tally.owed() if line.host is None]
    assert [line.sent_bytes for line in lines] == [150]


def test_refusals_cannot_push_the_log_out() -> None:
    log = FakeLog()
    pen = Record(log)
    for number in range(record.REFUSED_LINES_LIMIT + 5000):
        pen.refusal(Deny(reason="no"), untrusted_host=f"h{number}", port=80, via="proxy", protocol="http")
    pen.event(_request())
    pen.close()
    assert len(log.events) < record.REFUSED_LINES_LIMIT + PLACES_LIMIT + 30
    assert _request() in log.events


def test_while_the_log_fails_every_line_tries_it_again() -> None:
    log = FakeLog()
    pen = Record(log)
    pen._refused = Tally(0)
    log.failure = OSError(28, "no space")
    for _ in range(20):
        pen.refusal(Deny(reason="no"), untrusted_host="h", port=80, via="proxy", protocol="http")
    assert len(log.events) == 20
