"""`cloister ls`: which sandboxes there are, whether they run, and how they do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloister.audit.table import size
from cloister.cli.options import Which
from cloister.config import directories
from cloister.config.wording import visible
from cloister.session import survey

_WIDE = 200  # not a terminal: one sandbox a line


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ls`."""
    parser.add_argument("-C", "--workspace", metavar="DIR", help="only those of this workspace")
    parser.add_argument("-q", "--quiet", action="store_true", help="only the names of those that run")
    parser.add_argument("--json", action="store_true", help="a JSON list")


def execute(arguments: argparse.Namespace) -> int:
    """Print them."""
    only = Which(directory=arguments.workspace).project().workspace if arguments.workspace else None
    found = survey.survey(directories.state_directory(os.environ), only)
    if arguments.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif arguments.quiet:
        sys.stdout.writelines(f"{one.name or one.sandbox_id}\n" for one in found if one.running)
    elif not found:
        print("there is no sandbox; start one in a project: cloister up")
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDE
        console.print(_table(found))
    return 0


def _table(found: list[survey.Seen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "workspace", "runtime", "profile", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("up", "processes", "memory", "refused"):
        table.add_column(heading, justify="right")
    if any(one.ports for one in found):
        table.add_column("ports", overflow="fold")
    for one in found:
        cells: list[str | Text] = [
            one.name or f"({one.sandbox_id.rpartition('-')[2]})",
            Text(visible(one.workspace)),
            one.runtime,
            one.profile,
            "running" if one.running else "stopped",
            "" if one.uptime_s is None else duration(one.uptime_s),
            "" if one.processes is None else str(one.processes),
            size(one.memory_bytes),
            "" if one.refusals is None else str(one.refusals),
            ", ".join(map(port, one.ports)),
        ]
        table.add_row(*cells[: len(table.columns)])
    return table


def port(one: survey.Port) -> str:
    """This machine's, the sandbox's where that is another, and whether a server answers: "8080→3000 (down)"."""
    number = str(one.host) if one.host == one.sandbox else f"{one.host}→{one.sandbox}"
    return number if one.up is None else f"{number} ({'up' if one.up else 'down'})"


def duration(seconds: float) -> str:
    """Two figures at most: "5 s", "3 min", "2 h 10 min", "4 d 3 h"."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
