"""`cloister logs`: what the sandboxes of this workspace asked for, and what was decided.

Shows the sandbox that started last; `--all` shows every one. `--json` prints the lines for a program.
Ends quietly when the reader of its output goes away.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from cloister.audit.log import timestamp
from cloister.audit.read import Entry, Reader, Selection, as_json, latest_sandbox
from cloister.audit.table import table
from cloister.cli.place import workspace_around
from cloister.config import directories
from cloister.errors import UsageError, WorkspaceError

POLL_S = 0.25
PIPE_WIDTH_CHARACTERS = 180  # not a terminal: wide enough that a reason stays on its line
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Show = Callable[[Sequence[Entry]], None]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what the sandboxes of this workspace asked for, and what was decided."
    parser.add_argument("-f", "--follow", action="store_true", help="go on as new lines come")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--sandbox", metavar="ID", default="", help="this sandbox (default: the one that started last)"
    )
    which.add_argument("--all", action="store_true", help="every sandbox of this workspace")
    parser.add_argument("--refused", action="store_true", help="only refusals and alarms")
    parser.add_argument("--since", metavar="AGE", default="", help="only the last AGE: 90s, 10m, 2h, 3d")
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the workspace (default: here)")


def execute(arguments: argparse.Namespace) -> int:
    age_s = duration_s(arguments.since) if arguments.since else None
    root = workspace_around(arguments.workspace, may_be_gone=True)  # its log outlives it
    path = directories.audit_path(root, os.environ)
    selection = Selection(
        sandbox="" if arguments.all else arguments.sandbox or latest_sandbox(path),
        since="" if age_s is None else timestamp(time.time() - age_s),
        refused_only=arguments.refused,
    )
    if not os.path.exists(path) and not os.path.isdir(root):
        raise WorkspaceError(
            f"the workspace {root!r} does not exist", resolution="name a directory with -C DIR"
        )
    if not os.path.exists(path) and not arguments.follow:
        print(
            f"No sandbox has run in {root!r} yet, so there is no log. Start one: cloister run -- COMMAND",
            file=sys.stderr,
        )
        return 0
    return show(
        Reader(path),
        selection,
        print_json if arguments.json else TablePrinter().print,
        wait=_wait if arguments.follow else None,
    )


def show(reader: Reader, selection: Selection, printer: Show, *, wait: Callable[[], None] | None) -> int:
    """Print what is selected; with `wait`, again and again, waiting in between, until interrupted."""
    try:
        shown = 0
        for batch in _batches(reader, selection, wait):
            shown += len(batch)
            printer(batch)
        if not shown:
            print("Nothing in the log matches.", file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it flushes at exit
        return 0
    finally:
        reader.close()
    return 0


def duration_s(text: str) -> int:
    """Read "90s", "10m", "2h" or "3d"."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--since: {text!r} is not an age", resolution="write a number and a unit: 90s, 10m, 2h, 3d"
        )
    return int(match[1]) * _UNIT_S[match[2]]


def print_json(entries: Sequence[Entry]) -> None:
    for entry in entries:
        print(as_json(entry), flush=False)
    sys.stdout.flush()


class TablePrinter:
    """Prints rows below one heading, however many batches they come in."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self._console = Console(
            highlight=False,
            width=None if terminal else PIPE_WIDTH_CHARACTERS,
            no_color=None if terminal else True,
        )
        self._heading = True

    def print(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._console.print(table(entries, heading=self._heading, width=self._console.width))
            sys.stdout.flush()
            self._heading = False


def _batches(reader: Reader, selection: Selection, wait: Callable[[], None] | None) -> Iterator[list[Entry]]:
    yield [entry for entry in reader.poll() if selection.covers(entry)]
    while wait is not None:
        wait()
        yield [entry for entry in reader.poll() if selection.covers(entry)]


def _wait() -> None:
    time.sleep(POLL_S)
