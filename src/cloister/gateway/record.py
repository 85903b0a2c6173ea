"""What the gateway writes to the audit log.

Rule 1: text from the sandbox is cut and stripped of everything unprintable before it becomes a field.
Rule 2: a flood of DNS questions costs a bounded number of lines: each (name, decision) once, at most
DNS_PAIRS_LIMIT of them, then counts at each power of ten.
Rule 3: a flood of anything else is summed up as well (`tally.py`): the log drops its oldest lines, and what the
        sandbox did first must not be among them.
Rule 4: `healthy` is False while the log cannot be written; nothing new leaves the sandbox then.
"""

from __future__ import annotations

from typing import Protocol

from cloister.audit.log import Event
from cloister.gateway.tally import Tally
from cloister.types import Deny

DNS_PAIRS_LIMIT = 4096
TEXT_LIMIT_CHARACTERS = 255
GRANTED_LINES_LIMIT = 50_000  # lines of some 350 bytes; together less than the log keeps
REFUSED_LINES_LIMIT = 10_000  # of at most 1.3 KB


def printable(untrusted: str, limit: int = TEXT_LIMIT_CHARACTERS) -> str:
    """Printable ASCII of at most `limit` characters; everything else becomes "?"."""
    return "".join(char if " " <= char <= "~" else "?" for char in untrusted[:limit])


class Log(Protocol):
    """Where it writes: audit/log.py's `AuditLog`, or the host's from afar."""

    @property
    def failure(self) -> OSError | None:
        """Why nothing new may be let out; None while all is written."""

    def write(self, event: Event) -> None:
        """Write one line. Never raises."""

    def close(self) -> None:
        """Nothing more is written."""


class Record:
    """The gateway's pen."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._dns_seen: set[tuple[str, str | None, bool]] = set()
        self._dns_suppressed = 0
        self._granted = Tally(GRANTED_LINES_LIMIT)
        self._refused = Tally(REFUSED_LINES_LIMIT)

    @property
    def healthy(self) -> bool:
        return self._log.failure is None

    def event(self, event: Event) -> None:
        """Write one line, or add it to a total."""
        if not self.healthy:  # a write is what tries the log again
            self._log.write(event)
            return
        tally = self._granted if event.kind in ("connect", "request", "publish") else self._refused
        if (line := tally.pass_on(event)) is not None:
            self._log.write(line)

    def refusal(
        self,
        denial: Deny,
        *,
        untrusted_host: str | None,
        port: int | None,
        via: str,
        protocol: str,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
    ) -> None:
        """Write that something was refused, and why."""
        self.event(
            Event(
                kind="refuse",
                host=None if untrusted_host is None else printable(untrusted_host),
                port=port,
                via=via,  # type: ignore[arg-type]  # callers pass the literals of audit.log
                protocol=protocol,  # type: ignore[arg-type]  # as above
                rule=denial.rule,
                reason=printable(denial.reason, 400),
                method=None if method is None else printable(method, 32),
                path=None if path is None else printable(path),
                status=status,
            )
        )

    def dns(self, untrusted_name: str, *, rule: str | None, reason: str, allowed: bool) -> None:
        """Write one DNS decision, if it is new and the flood limit is not reached."""
        pair = (untrusted_name.lower(), rule, allowed)
        if pair in self._dns_seen:
            return
        if len(self._dns_seen) >= DNS_PAIRS_LIMIT:
            self._dns_suppressed += 1
            if str(self._dns_suppressed).strip("0") == "1":
                self._summarise()
            return
        self._dns_seen.add(pair)
        self._log.write(
            Event(
                kind="dns" if allowed else "refuse",
                host=printable(untrusted_name),
                via="dns",
                protocol="dns",
                rule=rule,
                reason=printable(reason, 400),
            )
        )

    def internal_error(self, error: BaseException, *, where: str) -> None:
        """Write that a handler failed. Its connection is closed; the gateway lives."""
        self.event(Event(kind="alarm", reason=f"internal error: {type(error).__name__}", text=where))

    def close(self) -> None:
        """Write what is still owed."""
        if self._dns_suppressed:
            self._summarise()
        for tally in (self._granted, self._refused):
            for line in tally.owed():
                self._log.write(line)
        self._log.close()

    def _summarise(self) -> None:
        text = f"{self._dns_suppressed} more DNS decisions, not written: over {DNS_PAIRS_LIMIT} names"
        self._log.write(Event(kind="dns", via="dns", protocol="dns", reason=text))
