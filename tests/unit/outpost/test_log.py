"""The log from afar: what stops the gateway, and what it forgets (nothing, but it is bounded)."""

from __future__ import annotations

import errno

from cloister.audit.log import Event
from cloister.gateway.record import Record
from cloister.outpost import log
from cloister.outpost.frames import Message
from cloister.outpost.log import FarLog


class Host:
    """Takes lines, and confirms them when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[Message] = []
        self.log = FarLog(self.sent.append, clock=lambda: self.now)

    def texts(self) -> list[object]:
        return [one["event"].get("text") for one in self.sent if isinstance(one["event"], dict)]


def test_a_line_is_on_its_way_at_once() -> None:
    host = Host()
    host.log.write(Event(kind="connect", host="a.example", port=443))
    assert host.sent == [
        {"op": "line", "number": 1, "event": {"kind": "connect", "host": "a.example", "port": 443}}
    ]
    assert host.log.failure is None


def test_a_host_that_does_not_confirm_stops_what_is_new_until_it_does() -> None:
    host = Host()
    record = Record(host.log)
    host.log.write(Event(kind="connect"))
    host.now += log.LAG_S + 0.01
    assert not record.healthy
    host.log.confirmed(1, None)
    assert record.healthy


def test_too_many_lines_that_nobody_confirms_stop_it_too() -> None:
    host = Host()
    for _ in range(log.LINES_LIMIT):
        host.log.write(Event(kind="connect"))
    assert Record(host.log).healthy
    host.log.write(Event(kind="connect"))
    assert not Record(host.log).healthy
    host.log.confirmed(log.LINES_LIMIT + 1, None)
    assert host.log.failure is None


def test_a_host_that_cannot_write_stops_it_until_a_later_line_is_written() -> None:
    host = Host()
    host.log.write(Event(kind="connect"))
    host.log.confirmed(1, errno.ENOSPC)
    assert host.log.failure is not None
    assert host.log.failure.errno == errno.ENOSPC
    host.log.write(Event(kind="refuse"))
    assert host.log.failure is not None
    host.log.confirmed(2, None)
    assert host.log.failure is None


def test_it_is_bounded_and_says_how_many_lines_are_lost() -> None:
    host = Host()
    for _ in range(log.KEPT_LIMIT + 7):
        host.log.write(Event(kind="refuse"))
    assert len(host.sent) == log.KEPT_LIMIT
    host.log.confirmed(log.KEPT_LIMIT, None)
    host.log.write(Event(kind="connect", text="next"))
    assert host.texts()[-2:] == ["7 lines could not be written: the host did not take them", "next"]
