"""Sum up what a flood would write to the audit log, so that a sandbox cannot push its own evidence out of it.

The log keeps some 60 MB and drops its oldest lines; half a minute of refused requests is that much.

Rule 1: the first lines of a sandbox are written one by one, enough for any honest run. After them, lines about the
        same place and rule become one running total, told at 1, 10, 100 and every 1000, and at the end.
Rule 2: bounded: PLACES_LIMIT totals; places beyond them share one.
Rule 3: bytes are summed, so that an upload is seen in whatever number of pieces it left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloister.audit.log import Event

PLACES_LIMIT = 1000

_Place = tuple[str, str | None, int | None, str | None]


@dataclass(slots=True)
class _Total:
    first: Event
    place: _Place
    lines: int = 0
    told: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Tally:
    """Decides which lines of one sort are written. `limit` is of those written one by one."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._totals: dict[_Place, _Total] = {}

    def pass_on(self, event: Event) -> Event | None:
        """What to write for this event: itself, a total, or nothing."""
        if self._left > 0:
            self._left -= 1
            return event
        place: _Place = (event.kind, event.host, event.port, event.rule)
        if place not in self._totals and len(self._totals) >= PLACES_LIMIT:
            place = (event.kind, None, None, event.rule)
        total = self._totals.setdefault(place, _Total(event, place))
        total.lines += 1
        total.sent_bytes += event.sent_bytes or 0
        total.received_bytes += event.received_bytes or 0
        return _told(total) if total.lines in (1, 10, 100) or total.lines % 1000 == 0 else None

    def owed(self) -> Iterator[Event]:
        """The totals that have grown since they were told."""
        for total in self._totals.values():
            if total.lines > total.told:
                yield _told(total)


def _told(total: _Total) -> Event:
    total.told = total.lines
    _, host, port, rule = total.place
    return Event(
        kind=total.first.kind,
        host=host,
        port=port,
        via=total.first.via,
        protocol=total.first.protocol,
        rule=rule,
        sent_bytes=total.sent_bytes or None,
        received_bytes=total.received_bytes or None,
        reason=f"{total.lines} more, not written one by one: too many lines in this sandbox",
    )
