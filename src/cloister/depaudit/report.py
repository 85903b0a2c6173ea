"""Show a report: as JSON for a program, as a page for a person.

Rule 1: no I/O. Everything that comes from the sandbox is escaped before a terminal gets it (audit/table.py).
Rule 2: the page is cut, and says so; the JSON has everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from cloister.audit.table import printable
from cloister.depaudit import scripts
from cloister.depaudit.observation import Observation
from cloister.depaudit.places import Place, place
from cloister.depaudit.verdict import Level, Verdict

FORMAT = 1
ROWS_LIMIT = 15
_STYLES = {Level.CLEAN: "green", Level.SUSPICIOUS: "yellow", Level.MALICIOUS: "bold red"}

Part = Text | Table


def document(seen: Observation, verdict: Verdict) -> dict[str, object]:
    """The report as plain JSON; scripts are named by their index in "scripts"."""
    return {
        "format": FORMAT,
        "verdict": verdict.level.word,
        "reasons": [
            {"level": reason.level.word if reason.level else "remark", "text": reason.text, "who": reason.who}
            for reason in verdict.reasons
        ],
        "command": list(seen.command),
        "exit_code": seen.code,
        "timed_out": seen.timed_out,
        "duration_s": seen.duration_s,
        "scripts": [asdict(one) for one in seen.scripts],
        "processes": [{**asdict(one), "arguments": list(one.arguments)} for one in seen.processes],
        "processes_left_out": seen.processes_left_out,
        "canaries": {
            "opened": [{**asdict(one), "program": list(one.program)} for one in seen.opened],
            "sent": [asdict(one) for one in seen.sent],
        },
        "written": [{**asdict(one), "place": place(one.path).value} for one in seen.written],
        "hosts": [{**asdict(one), "requests": list(one.requests)} for one in seen.asked],
        "dependencies": [asdict(one) for one in seen.dependencies],
        "notes": list(seen.notes),
    }


def page(seen: Observation, verdict: Verdict) -> Iterator[Part]:
    """The report for a person, part by part."""
    yield _headline(seen, verdict)
    yield from _section(
        "Why",
        (
            (reason.level.word if reason.level else "remark", reason.who, reason.text)
            for reason in verdict.reasons
        ),
        styles=[_STYLES[reason.level] if reason.level else "" for reason in verdict.reasons],
    )
    yield from _section("Install scripts", _scripts(seen))
    yield from _section("Canaries and bait opened", _opened(seen))
    yield from _section("Canaries on their way out", _sent(seen))
    yield from _section(
        "Files written outside of packages",
        (
            (one.how, one.path, place(one.path).value)
            for one in seen.written
            if place(one.path) not in (Place.PACKAGES, Place.MANIFEST)
        ),
    )
    yield from _section(
        "Hosts asked for",
        ((one.how, one.host, f"{one.times} ×", ", ".join(one.requests[:3])) for one in seen.asked),
    )
    yield from _section(
        "Dependencies that no registry gives",
        ((one.kind, one.package, one.source, one.file) for one in seen.dependencies),
    )
    yield from _section("Programs started", _programs(seen))
    for note in seen.notes:
        yield Text(f"Note: {printable(note)}")


def _headline(seen: Observation, verdict: Verdict) -> Text:
    text = Text(f"{verdict.level.word.upper()}", style=_STYLES[verdict.level])
    text.append(f"  {printable(' '.join(seen.command))}", style="bold")
    if seen.timed_out:
        ended = "ended at its time limit: what it would have done after it is not known"
    elif seen.code:
        ended = (
            f"the command failed with exit code {seen.code}: what it would have done after it is not known"
        )
    else:
        ended = "the command succeeded"
    text.append(f"\n{ended}; {seen.duration_s:g} s", style="" if seen.code or seen.timed_out else "dim")
    if verdict.level is Level.CLEAN:
        text.append(
            "\nNothing odd was seen. That is no proof: code may wait, or notice where it runs.", style="dim"
        )
    return text


def _scripts(seen: Observation) -> Iterator[tuple[str, ...]]:
    for index, one in enumerate(seen.scripts):
        counted = Counter(
            scripts.shown(process.arguments) for process in seen.processes if process.script == index
        )
        started = ", ".join(f"{name} × {times}" if times > 1 else name for name, times in counted.items())
        yield one.title, one.command, f"started: {started}" if started else ""


def _sent(seen: Observation) -> Iterator[tuple[str, ...]]:
    names: dict[tuple[str, str], list[str]] = {}
    for one in seen.sent:
        names.setdefault((one.target, one.how), []).append(one.canary)
    for (target, how), canaries in names.items():
        yield target, how, ", ".join(canaries)


def _opened(seen: Observation) -> Iterator[tuple[str, ...]]:
    for one in seen.opened:
        if one.name.startswith(("~", ".")) and not one.writing:
            continue  # bait, which anybody may read
        who = seen.scripts[one.script].title if one.script is not None else "the command"
        program = scripts.shown(one.program) or "a program that could not be caught"
        what = "to write" if one.writing else "to read"
        yield one.name, what, f"{one.times} ×", program, who


def _programs(seen: Observation) -> Iterator[tuple[str, ...]]:
    """Those of the command itself and of each script, together."""
    counted: Counter[tuple[int | None, str]] = Counter(
        (process.script, scripts.shown(process.arguments) or process.path) for process in seen.processes
    )
    by: dict[int | None, list[str]] = {}
    for (script, name), times in counted.items():
        by.setdefault(script, []).append(f"{name} × {times}" if times > 1 else name)
    for script, names in by.items():
        yield (seen.scripts[script].title if script is not None else "the command"), ", ".join(names)
    if seen.processes_left_out:
        yield "", f"and {seen.processes_left_out} more, which are not listed"


def _section(
    title: str, rows: Iterable[tuple[str, ...]], *, styles: list[str] | None = None
) -> Iterator[Part]:
    """A heading and a table below it; nothing if there are no rows."""
    listed = [tuple(printable(cell) for cell in row) for row in rows]
    if not listed:
        return
    yield Text(f"\n{title} ({len(listed)})", style="bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=False)
    for _ in range(max(len(row) for row in listed) - 1):
        table.add_column(overflow="fold")
    for index, row in enumerate(listed[:ROWS_LIMIT]):
        table.add_row(*(Text(cell) for cell in row), style=styles[index] if styles else "")
    yield table
    if len(listed) > ROWS_LIMIT:
        yield Text(f"… and {len(listed) - ROWS_LIMIT} more: --json has all", style="dim")
