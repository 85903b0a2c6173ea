"""`cloister doctor`: whether this host can run sandboxes, and what to type where it cannot.

Exit code 0 when `cloister run` would work, 1 otherwise. Changes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloister.audit.table import printable
from cloister.doctor.checks import Check, Grade, check, usable
from cloister.doctor.probe import host_facts

PIPE_WIDTH_CHARACTERS = 160
_STYLES = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Find out whether this host can run sandboxes, and what to type where it cannot."
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def execute(arguments: argparse.Namespace) -> int:
    checks = check(host_facts(os.environ))
    print_json(checks) if arguments.json else print_table(checks)
    return 0 if usable(checks) else 1


def print_json(checks: Sequence[Check]) -> None:
    """{"usable": …, "checks": [{"name", "grade": "ok|warn|fail", "sentence", "remedy"}]}"""
    listed = [
        {"name": one.name, "grade": one.grade.value, "sentence": one.sentence, "remedy": one.remedy}
        for one in checks
    ]
    print(json.dumps({"usable": usable(checks), "checks": listed}, indent=2))


def print_table(checks: Sequence[Check]) -> None:
    """The results, then what to type: a remedy may have many lines, and must survive being copied."""
    terminal = sys.stdout.isatty()
    console = Console(
        highlight=False,
        width=None if terminal else PIPE_WIDTH_CHARACTERS,
        no_color=None if terminal else True,
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in checks:
        table.add_row(
            Text(one.grade.value, style=_STYLES[one.grade]), Text(one.name), Text(printable(one.sentence))
        )
    console.print(table)
    remedies: dict[str, list[str]] = {}
    for one in checks:
        if one.remedy:
            remedies.setdefault(one.remedy, []).append(one.name)
    for remedy, names in remedies.items():
        console.print(f"\n→ {', '.join(names)}:", style="bold", markup=False)
        console.out(remedy, highlight=False)
    console.print()
    if usable(checks):
        console.print("cloister run works here.", style="bold green")
    else:
        console.print("cloister run does not work here yet.", style="bold red")
