"""Render audit entries as a table for people.

Rule 1: hosts, paths and reasons come from inside the sandbox. Whatever a terminal could act on, or a reader
be deceived by (control, bidirectional, invisible characters), is shown as an escape; markup is only text.
Rule 2: widths are fixed, so that rows that follow later stand below the same headings.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from cloister.audit.log import Event
from cloister.audit.read import Entry

_STYLES = {"refuse": "red", "alarm": "bold red", "quarantine": "yellow", "start": "dim", "end": "dim"}
WIDE_CHARACTERS = 132  # below it, four columns instead of nine
_UNITS = ("B", "kB", "MB", "GB", "TB")


def table(entries: Iterable[Entry], *, heading: bool, width: int) -> Table:
    """A borderless table of `entries`, `width` characters wide; times are UTC, as in the file."""
    rendered = Table(box=None, show_header=heading, pad_edge=False, header_style="bold", expand=False)
    narrow = width < WIDE_CHARACTERS
    rendered.add_column("time (UTC)", width=12, no_wrap=True)
    if not narrow:
        rendered.add_column("sandbox", width=8, overflow="ellipsis", no_wrap=True)
    rendered.add_column("event", width=10, no_wrap=True)
    rendered.add_column("host:port", width=27 if narrow else 28, overflow="fold")
    if not narrow:
        rendered.add_column("rule", width=18, overflow="fold")
        rendered.add_column("sent", width=8, justify="right", no_wrap=True)
        rendered.add_column("received", width=8, justify="right", no_wrap=True)
        rendered.add_column("ms", width=7, justify="right", no_wrap=True)
    rendered.add_column("reason", min_width=24, overflow="fold", ratio=1)
    for entry in entries:
        row = (Text(cell) for cell in (narrow_cells(entry) if narrow else cells(entry)))
        rendered.add_row(*row, style=_STYLES.get(entry.event.kind, ""))
    return rendered


def narrow_cells(entry: Entry) -> tuple[str, ...]:
    """One row's texts for a narrow terminal: what has no column of its own stands with the reason."""
    time, _, event, target, rule, sent, received, _, reason = cells(entry)
    traffic = f"↑ {sent} ↓ {received}" if sent and received else ""
    return time, event, target, " · ".join(part for part in (rule, traffic, reason) if part)


def cells(entry: Entry) -> tuple[str, ...]:
    """One row's texts, safe to print."""
    event = entry.event
    return (
        printable(entry.time[11:23]),
        printable(entry.sandbox.rpartition("-")[2]),  # the rest is the project's, the same on every line
        printable(event.kind),
        printable(destination(event)),
        printable((event.rule or "").removesuffix(f":{event.host}")),  # presets' rules end in their host
        size(event.sent_bytes),
        size(event.received_bytes),
        "" if event.duration_ms is None else f"{event.duration_ms:.0f}",
        printable(explanation(event)),
    )


def destination(event: Event) -> str:
    """host:port, or the address where no name is known."""
    host = event.host or event.address or ""
    if ":" in host:
        host = f"[{host}]"
    return host if event.port is None else f"{host}:{event.port}"


def explanation(event: Event) -> str:
    """What was asked and why it was decided so."""
    request = " ".join(part for part in (event.method, event.path) if part)
    status = "" if event.status is None else str(event.status)
    if event.kind == "end" and status:
        status = f"exit code {status}"
    return " · ".join(part for part in (request, status, event.reason, event.text) if part)


def size(count_bytes: int | None) -> str:
    """Decimal units, three digits: "980 B", "12.3 kB"."""
    if count_bytes is None:
        return ""
    amount, unit = float(count_bytes), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 or amount >= 99.95 else f"{amount:.1f} {_UNITS[unit]}"


def printable(untrusted_text: str) -> str:
    r"""Show what is not printable as an escape: ESC as \x1b, a bidirectional override as \u202e.

    `str.isprintable` is false for control, format, surrogate, private and unassigned characters and for every
    separator but the space: what can move a cursor, reorder a line or hide in it.
    """
    if untrusted_text.isprintable():
        return untrusted_text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in untrusted_text
    )
