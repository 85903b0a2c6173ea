"""`cloister doctor`: whether this host can run sandboxes, and what to type where it cannot.

Exit code 0 when `cloister run` would work without a container engine, 1 otherwise. Changes nothing.
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
from cloister.cli.place import workspace_around
from cloister.config import directories
from cloister.doctor import engines
from cloister.doctor.checks import check, usable
from cloister.doctor.probe import host_facts
from cloister.doctor.result import Check, Grade
from cloister.errors import CloisterError

PIPE_WIDTH_CHARACTERS = 160
_STYLES = {Grade.OK: "green", Grade.NONE: "dim", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Find out whether this host can run sandboxes, and what to type where it cannot."
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def execute(arguments: argparse.Namespace) -> int:
    facts = host_facts(os.environ, untrusted=_project())
    checks, containers = check(facts), engines.usable(facts.engines)
    print_json(checks, containers) if arguments.json else print_table(checks, containers)
    return 0 if usable(checks) else 1


def _project() -> tuple[str, ...]:
    """The project around the current directory, in which an agent may have written; nothing if there is none."""
    try:
        found = workspace_around(".")
    except CloisterError:
        return ()
    return () if found in ("/", os.path.realpath(directories.home(os.environ))) else (found,)


def print_json(checks: Sequence[Check], containers: Sequence[str]) -> None:
    """{"usable": …, "runtimes": […], "checks": [{"name", "grade": "ok|none|warn|fail", "sentence", "remedy"}]}"""
    listed = [
        {"name": one.name, "grade": one.grade.value, "sentence": one.sentence, "remedy": one.remedy}
        for one in checks
    ]
    runtimes = [*(["embedded"] if usable(checks) else []), *containers]
    print(json.dumps({"usable": usable(checks), "runtimes": runtimes, "checks": listed}, indent=2))


def print_table(checks: Sequence[Check], containers: Sequence[str]) -> None:
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
    options = " and ".join(f"--runtime {name}" for name in containers)
    if usable(checks):
        also = f", also with {options}" if options else ""
        console.print(f"cloister run works here{also}.", style="bold green")
    else:
        only = f"; it does with {options}" if options else ""
        console.print(f"cloister run does not work here yet{only}.", style="bold red")
