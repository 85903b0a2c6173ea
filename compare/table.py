"""Render a comparison: for a terminal, as JSON, and as the page docs/compare.md.

Rule: no I/O.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloister.verify.probes import BY_ID, PROBES
from compare.judge import Cell, Finding
from compare.peers import described

if TYPE_CHECKING:
    from compare.run import Column, Comparison

BEGIN, END = "<!-- compare -->", "<!-- /compare -->"
_MARKS = {
    Finding.HELD: "held",
    Finding.BREACHED: "**breached**",
    Finding.NOT_OFFERED: "–",
    Finding.CONTROL_FAILED: "control failed",
    Finding.NOT_RUN: "not run",
}


def exit_code(result: Comparison, ours: Sequence[str]) -> int:
    """1 if cloister itself is breached; whatever becomes of the others, a table that was made is 0."""
    own = (column for column in result.columns if column.name in ours)
    return int(any(cell.finding is Finding.BREACHED for column in own for cell in column.cells.values()))


def line(column: Column) -> str:
    """One peer in one line."""
    title = described()[column.name].title
    if column.trouble:
        return f"{title}: not run: {column.trouble}"
    counts = Counter(cell.finding for cell in column.cells.values())
    words = ", ".join(f"{counts[one]} {one.value}" for one in Finding if counts[one])
    return f"{title} {column.version}: {words} ({column.duration_s:.0f} s)"


def text(result: Comparison) -> str:
    """A table for a terminal."""
    titles = [described()[column.name].title for column in result.columns]
    rows = [["probe", *titles]]
    rows += [
        [name, *(column.cells[name].finding.value for column in result.columns)] for name in result.probes
    ]
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def document(result: Comparison) -> str:
    """JSON: every cell with its reason and evidence."""
    return json.dumps(
        {
            "format": 1,
            "kernel": result.kernel,
            "machine": result.machine,
            "time": _time(result, "%Y-%m-%dT%H:%M:%SZ"),
            "peers": [
                {
                    "name": column.name,
                    "version": column.version,
                    "trouble": column.trouble,
                    "duration_s": round(column.duration_s, 1),
                    "probes": {
                        name: {
                            "finding": cell.finding.value,
                            "reason": cell.reason,
                            "passed": cell.passed,
                            "tried": cell.tried,
                            "evidence": list(cell.evidence),
                            "notes": list(cell.notes),
                        }
                        for name, cell in column.cells.items()
                    },
                }
                for column in result.columns
            ],
        },
        indent=2,
    )


def page(current: str, result: Comparison) -> str:
    """docs/compare.md with its generated part as this run has found it."""
    before, _, rest = current.partition(BEGIN)
    return f"{before}{BEGIN}\n{markdown(result)}\n{END}{rest.partition(END)[2]}"


def markdown(result: Comparison) -> str:
    """Versions, the table, and for each peer why: what breached it, what it does not offer, what failed."""
    about = described()
    head = [about[column.name].title for column in result.columns]
    made = _time(result, "%Y-%m-%d %H:%M UTC")
    lines = [f"Made {made} on Linux {result.kernel}, {result.machine}.", ""]
    lines += ["| column | version | what it is |", "|---|---|---|"]
    lines += [
        f"| {about[one.name].title} | {one.version or '?'} | {about[one.name].what}: {_files(one.name)} |"
        for one in result.columns
    ]
    lines += ["", f"| probe | claim | {' | '.join(head)} |", f"|---|---|{'---|' * len(head)}"]
    lines += [
        f"| {name} | {BY_ID[name].claim} | {' | '.join(_MARKS[one.cells[name].finding] for one in result.columns)} |"
        for name in result.probes
    ]
    counts = [Counter(cell.finding for cell in one.cells.values()) for one in result.columns]
    for finding in (
        Finding.HELD,
        Finding.BREACHED,
        Finding.NOT_OFFERED,
        Finding.CONTROL_FAILED,
        Finding.NOT_RUN,
    ):
        if any(one[finding] for one in counts):
            lines.append(f"| | *{finding.value}* | {' | '.join(str(one[finding]) for one in counts)} |")
    for column in result.columns:
        lines += ["", f"### {about[column.name].title}", *_reasons(column)]
    left_out = [probe.id for probe in PROBES if probe.id not in result.probes]
    if left_out:
        lines += ["", f"Not compared: {', '.join(left_out)}."]
    return "\n".join(lines)


def _reasons(column: Column) -> list[str]:
    if column.trouble:
        return ["", f"Not run: {_cell(column.trouble)}"]
    lines = [""]
    for finding in (Finding.BREACHED, Finding.CONTROL_FAILED, Finding.NOT_OFFERED):
        found = {name: _reason(cell) for name, cell in column.cells.items() if cell.finding is finding}
        by_reason: dict[str, list[str]] = {}
        for name, reason in found.items():
            by_reason.setdefault(reason, []).append(name)
        lines += [
            f"- *{finding.value}* {', '.join(ids)}: {_cell(reason)}" for reason, ids in by_reason.items()
        ]
    notes = dict.fromkeys(note for cell in column.cells.values() for note in cell.notes)
    lines += [f"- *judged* {_cell(note)}" for note in notes]
    return lines if lines[1:] else ["", "Everything that was tried held."]


def _reason(cell: Cell) -> str:
    """With how many of the attacks passed: one may be the least of them."""
    counted = f"{cell.passed} of {cell.tried} attacks, " if cell.passed else ""
    return f"{counted}{cell.reason}" if cell.finding is Finding.BREACHED else cell.reason


def _files(name: str) -> str:
    paths = (
        one if not one.startswith("../") else one.removeprefix("../")
        for one in described()[name].configuration
    )
    links = (
        f"[{path.rpartition('/')[2]}](../compare/{path if path.startswith('peers/') else f'configuration/{path}'})"
        for path in paths
    )
    return ", ".join(links)


def _cell(text: str) -> str:
    """Within Markdown: one line, nothing that it would read as its own."""
    words = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return words.replace("_", "\\_")


def _time(result: Comparison, form: str) -> str:
    return time.strftime(form, time.gmtime(result.started))
