"""The table: what a person sees, and what a hostile name must not do to a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cloister.audit.log import Event
from cloister.audit.read import Entry
from cloister.audit.table import destination, printable, size, table


def render(*events: Event, terminal: bool = False, width: int = 180) -> str:
    output = io.StringIO()
    console = Console(
        file=output, width=width, highlight=False, force_terminal=terminal, no_color=not terminal
    )
    console.print(
        table(
            [Entry(time="2026-01-02T03:04:05.678Z", sandbox="box", event=event) for event in events],
            heading=True,
            width=width,
        )
    )
    return output.getvalue()


def test_a_row_has_time_sandbox_event_destination_rule_bytes_duration_and_reason() -> None:
    heading, row = render(
        Event(
            kind="refuse", host="exfil.example.net", port=443, rule="ban-1", sent_bytes=1200,
            received_bytes=0, duration_ms=12.4, method="POST", path="/x", status=403,
            reason="no rule covers it",
        )
    ).splitlines()  # fmt: skip
    assert " ".join(heading.split()) == "time (UTC) sandbox event host:port rule sent received ms reason"
    assert " ".join(row.split()) == (
        "03:04:05.678 box refuse exfil.example.net:443 ban-1 1.2 kB 0 B 12 POST /x · 403 · no rule covers it"
    )


HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\r",
    "\n",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\x7f",
    "\ud800",
    "\0",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_hostile_character_reaches_the_terminal(hostile: str) -> None:
    text = render(
        Event(
            kind="refuse",
            host=f"a{hostile}",
            rule=hostile,
            path=hostile,
            method=hostile,
            reason=hostile,
            text=hostile,
        )
    )
    assert set(text) <= {*map(chr, range(32, 127)), "\n", "·"}
    assert printable(hostile).isascii()
    assert printable(hostile).isprintable()


def test_a_calm_text_is_left_alone() -> None:
    assert printable("no rule covers bücher.example") == "no rule covers bücher.example"


def test_markup_is_text() -> None:
    assert "[red]x[/red] [link=http://evil]" in render(
        Event(kind="refuse", reason="[red]x[/red] [link=http://evil]")
    )


def test_colours_only_where_a_terminal_is() -> None:
    assert "\x1b[" in render(Event(kind="refuse"), terminal=True)
    assert "\x1b[" not in render(Event(kind="refuse"))


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(kind="connect", host="a.test", port=443), "a.test:443"),
        (Event(kind="dns", host="a.test"), "a.test"),
        (Event(kind="refuse", address="2001:db8::1", port=80), "[2001:db8::1]:80"),
        (Event(kind="start"), ""),
    ],
)
def test_the_destination(event: Event, text: str) -> None:
    assert destination(event) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_940, "99.9 kB"), (99_960, "100 kB"),
     (999_700, "1.0 MB"), (1_000_000_000, "1.0 GB"), (10**18, "1000000 TB")],
)  # fmt: skip
def test_a_size(count: int | None, text: str) -> None:
    assert size(count) == text


def test_a_narrow_terminal_gets_four_columns_and_loses_no_reason() -> None:
    event = Event(
        kind="connect", host="pypi.org", port=443, rule="preset:pypi:pypi.org", sent_bytes=781,
        received_bytes=15_100, duration_ms=30,
    )  # fmt: skip
    output = render(event, Event(kind="refuse", host="x.test", reason="a long reason " * 5), width=80)
    assert max(map(len, output.splitlines())) <= 80
    assert " ".join(output.split()).startswith(
        "time (UTC) event host:port reason 03:04:05.678 connect pypi.org:443 preset:pypi · "
    )
    assert "↑ 781 B ↓ 15.1 kB" in " ".join(output.split())
    assert output.count("long") == 5


def test_the_end_says_its_exit_code() -> None:
    assert "exit code 2" in render(Event(kind="end", status=2))
