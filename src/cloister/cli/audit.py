"""`cloister audit [OPTIONS] [--] COMMAND [ARGUMENT …]`: what does this dependency code do?

The exit code is the verdict's, or, where nothing was found but the command failed, FAILED: an installation that broke
off has not shown what it would have done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from rich.console import Console

from cloister.cli.logs import PIPE_WIDTH_CHARACTERS, duration_s
from cloister.cli.place import named
from cloister.cli.run import tell
from cloister.depaudit import report
from cloister.depaudit.audit import Options, Report, audit
from cloister.depaudit.verdict import Level
from cloister.errors import UsageError, WorkspaceError

EXIT_CODES = {Level.CLEAN: 0, Level.SUSPICIOUS: 10, Level.MALICIOUS: 20}
FAILED = 30  # clean so far, but the command failed or ran out of time
DEFAULT_TIMEOUT = "20m"
_DESCRIPTION = """\
Run an installation (npm ci, pip install X, cargo build …) in a throw-away sandbox: a copy of the project, a fresh home,
package registries only, install scripts on, and canaries where credentials lie. Say what the dependency code did.
"""
_EPILOG = """\
exit codes: 0 clean, 10 suspicious, 20 malicious, 30 nothing was found but the command failed or ran out of time,
2 wrong usage, 125 the sandbox could not be made. What the command prints goes to standard error.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `audit`."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--timeout",
        metavar="AGE",
        default=DEFAULT_TIMEOUT,
        help=f"end it after 90s, 10m, 2h (default: {DEFAULT_TIMEOUT})",
    )
    parser.add_argument(
        "--allow",
        metavar="HOST",
        action="append",
        default=[],
        help="one more host that is no finding (repeatable)",
    )
    parser.add_argument(
        "-e", "--env", metavar="NAME=VALUE", action="append", default=[], help="set a variable (repeatable)"
    )
    parser.add_argument("command", nargs="...", metavar="[--] COMMAND", help="the command and its arguments")


def execute(arguments: argparse.Namespace) -> int:
    """Audit, print, and give the verdict's code."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    options = Options(
        command=tuple(command),
        directory=_directory(arguments.workspace),
        timeout_s=float(_timeout_s(arguments.timeout)),
        allow=tuple(arguments.allow),
        environment=tuple(_variable(text) for text in arguments.env),
    )
    found = audit(options, os.environ, tell)
    if arguments.json:
        print(json.dumps(report.document(found.observation, found.verdict), indent=2))
    else:
        _print(found)
    return _exit_code(found)


def _print(found: Report) -> None:
    terminal = sys.stdout.isatty()
    console = Console(
        highlight=False,
        width=None if terminal else PIPE_WIDTH_CHARACTERS,
        no_color=None if terminal else True,
    )
    console.print()
    for part in report.page(found.observation, found.verdict):
        console.print(part)


def _exit_code(found: Report) -> int:
    failed = found.observation.code != 0 or found.observation.timed_out
    return FAILED if found.verdict.level is Level.CLEAN and failed else EXIT_CODES[found.verdict.level]


def _directory(text: str) -> str:
    try:
        directory = os.path.realpath(named(text))
    except FileNotFoundError:
        directory = ""
    if not os.path.isdir(directory):
        raise WorkspaceError(
            f"the directory {text!r} does not exist", resolution="name a project with -C DIR"
        )
    return directory


def _timeout_s(text: str) -> int:
    try:
        seconds = duration_s(text)
    except UsageError:
        seconds = 0
    if not seconds:
        raise UsageError(
            f"--timeout: {text!r} is no length of time", resolution="write a number and a unit: 90s, 10m, 2h"
        )
    return seconds


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"-e: {text!r} is not NAME=VALUE", resolution="for example: -e CI=1")
    return name, value
