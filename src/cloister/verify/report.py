"""Render a report: as JSON, JUnit XML or TAP for programs, as a table for a person.

Rule 1: no I/O. Texts from the sandbox have been made printable (verdict.py).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from cloister.verify.probes import PROBES, Probe
from cloister.verify.verdict import Outcome, Result, exit_code

if TYPE_CHECKING:
    from cloister.verify.run import Report

FORMAT = 1


def document(report: Report) -> str:
    """JSON; what `verify.json` in the project's state holds."""
    return json.dumps(
        {
            "format": FORMAT,
            "cloister": report.version,
            "kernel": report.kernel,
            "machine": report.machine,
            "runtime": report.runtime,
            "policy": report.policy,
            "uid": report.user,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(report.started)),
            "duration_s": round(report.duration_s, 2),
            "passes": list(report.passes),
            "left_out": list(report.left_out),
            "exit_code": exit_code(report.results),
            "results": [
                {
                    "id": one.probe.id,
                    "promise": one.probe.promise,
                    "claim": one.probe.claim,
                    "attack": one.probe.attack,
                    "mutation": one.probe.mutation,
                    "also": list(one.probe.also),
                    "outcome": one.outcome.value,
                    "reason": one.reason,
                    "evidence": list(one.evidence),
                    "notes": list(one.notes),
                }
                for one in report.results
            ],
        },
        indent=2,
    )


def junit(report: Report) -> str:
    """JUnit XML: a breach is a failure, a failed control an error."""
    counts = Counter(one.outcome for one in report.results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="cloister verify ({escape(report.runtime)})" tests="{len(report.results)}"'
        f' failures="{counts[Outcome.BREACHED]}" errors="{counts[Outcome.CONTROL_FAILED]}"'
        f' skipped="{counts[Outcome.NOT_APPLICABLE]}" time="{report.duration_s:.2f}">',
        *_properties(report.left_out),
        *(_case(one) for one in report.results),
        "</testsuite>",
    ]
    return "\n".join(lines)


def tap(report: Report) -> str:
    """TAP version 14."""
    lines = ["TAP version 14", f"1..{len(report.results)}"]
    lines += [f"# left out: {_one_line(text)}" for text in report.left_out]
    for number, one in enumerate(report.results, 1):
        well = one.outcome in (Outcome.HELD, Outcome.NOT_APPLICABLE)
        skipped = f" # SKIP {_one_line(one.reason)}" if one.outcome is Outcome.NOT_APPLICABLE else ""
        claim = _one_line(one.probe.claim)
        notes = [f"# not reached: {_one_line(text)}" for text in one.notes]
        lines.append(f"{'ok' if well else 'not ok'} {number} - {one.probe.id} {claim}{skipped}")
        if not well:
            lines += [
                f"# {one.outcome.value}: {_one_line(text)}" for text in (one.reason, *one.evidence[:10])
            ]
        lines += notes
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """One line: how many of each outcome."""
    counts = Counter(one.outcome for one in results)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])


def claims() -> str:
    """The table of docs/threat-model.md."""
    rows = [
        f"| {one.id} | {one.promise} | {one.claim} | {one.attack} | {_mutations(one)} |" for one in PROBES
    ]
    return "\n".join(
        [
            "| probe | promise | claim | attack | weakened sandbox that it must find |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _mutations(probe: Probe) -> str:
    return ", ".join(f"`{name}`" for name in probe.mutations)


def _case(one: Result) -> str:
    name = quoteattr(f"{one.probe.id} {one.probe.claim}")
    tag = {
        Outcome.HELD: "",
        Outcome.BREACHED: "failure",
        Outcome.CONTROL_FAILED: "error",
        Outcome.NOT_APPLICABLE: "skipped",
    }[one.outcome]
    head = f'  <testcase classname="cloister.{escape(one.probe.promise)}" name={name}'
    told = f"<system-out>{escape(chr(10).join(one.notes))}</system-out>" if one.notes else ""
    if tag:
        evidence = escape("\n".join(one.evidence))
        told = f"<{tag} message={quoteattr(one.reason)}>{evidence}</{tag}>{told}"
    return f"{head}>{told}</testcase>" if told else f"{head}/>"


def _properties(left_out: Sequence[str]) -> list[str]:
    entries = [f'    <property name="left out" value={quoteattr(text)}/>' for text in left_out]
    return ["  <properties>", *entries, "  </properties>"] if entries else []


def _one_line(text: str) -> str:
    return " ".join(text.replace("#", "no.").split())
