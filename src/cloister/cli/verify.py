"""`cloister verify`: attack a sandbox with the configuration as it is, and say whether it holds."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloister.cli import options as shared
from cloister.cli.logs import PIPE_WIDTH_CHARACTERS
from cloister.sandbox import catalogue
from cloister.sandbox.registry import Record
from cloister.verify import report as reports
from cloister.verify.probes import HOST, INSIDE, Probe
from cloister.verify.run import Options, Report, probes, verify
from cloister.verify.verdict import EXEC, FIRST, Outcome, exit_code

_STYLES = {
    Outcome.HELD: "green",
    Outcome.BREACHED: "bold red",
    Outcome.CONTROL_FAILED: "yellow",
    Outcome.NOT_APPLICABLE: "dim",
}
_EVIDENCE_SHOWN = 5
_PASSES = {FIRST: "first process", EXEC: "later process", HOST: "host"}
_EPILOG = """\
exit codes: 0 everything that could be tried held, 1 something was breached, 3 nothing was, but a control failed (so the
attacks show nothing), 2 wrong usage, 125 the sandbox could not be made. The report, with all evidence, is kept in the
project's state as verify.json.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-C", "--workspace", metavar="DIR", help="the project (default: here)")
    parser.add_argument("--runtime", metavar="NAME", help="embedded, docker or podman")
    parser.add_argument(
        "--sandbox", metavar="NAME", help="attack this live sandbox, with what leaves nothing behind in it"
    )
    parser.add_argument("--only", metavar="ID", nargs="+", default=[], help="only these probes")
    parser.add_argument("--list", action="store_true", help="list the probes, and attack nothing")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the report as JSON")
    shown.add_argument("--junit", action="store_true", help="print it as JUnit XML")
    shown.add_argument("--tap", action="store_true", help="print it as TAP")


def execute(arguments: argparse.Namespace) -> int:
    """Attack and print; the code is that of _EPILOG."""
    chosen = probes(arguments.only)
    if arguments.list:
        for probe in chosen:
            print(f"{probe.id:10}{probe.promise:13}{probe.claim}")
        return 0
    options = Options(
        command=_cloister,
        directory=shared.directory(arguments),
        runtime=arguments.runtime,
        sandbox=_live(arguments),
        only=tuple(arguments.only),
    )
    if arguments.json or arguments.junit or arguments.tap:
        found = verify(options, os.environ, lambda _pass, _probe: None)
        render = reports.document if arguments.json else reports.junit if arguments.junit else reports.tap
        print(render(found))
    else:
        found = _shown(options, chosen)
    return exit_code(found.results)


def _cloister(arguments: Sequence[str]) -> int:
    """A command of ours, in a process that the verification has forked for it."""
    from cloister import cli  # it imports this module

    return cli.flush(cli.dispatch(list(arguments)))


def _live(arguments: argparse.Namespace) -> Record | None:
    if arguments.sandbox is None:
        return None
    name = catalogue.check_name(arguments.sandbox)
    return shared.live(shared.Which(name=name, directory=shared.directory(arguments) or "."))


def _shown(options: Options, chosen: Sequence[Probe]) -> Report:
    console = _console()
    inside, host = (sum(side in probe.sides for probe in chosen) for side in (INSIDE, HOST))
    counts = {FIRST: inside, EXEC: inside, HOST: host}
    if not console.is_terminal:
        found = verify(options, os.environ, lambda _pass, _probe: None)
    else:
        done: dict[str, int] = {}
        with Live(console=console, transient=True, refresh_per_second=8) as live:

            def progress(name: str, probe: str) -> None:
                done[name] = done.get(name, 0) + 1
                passes = ", ".join(f"{_PASSES[one]} {tried}/{counts[one]}" for one, tried in done.items())
                live.update(Text(f"attacking: {passes}   {probe}"))

            live.update(Text("starting a sandbox"))
            found = verify(options, os.environ, progress)
    _print(console, found)
    return found


def _print(console: Console, found: Report) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("probe", "outcome", "claim"):
        table.add_column(title, overflow="fold")
    for one in found.results:
        style = _STYLES[one.outcome]
        claim = Text(one.probe.claim)
        if one.outcome is not Outcome.HELD:
            claim.append(f"\n{one.reason}", style)
            if one.outcome is not Outcome.NOT_APPLICABLE:
                claim.append("".join(f"\n  {text}" for text in one.evidence[1:_EVIDENCE_SHOWN]), "dim")
        claim.append("".join(f"\n  not reached: {note}" for note in one.notes), "dim")
        table.add_row(one.probe.id, Text(one.outcome.value, style), claim)
    console.print(table)
    console.print()
    for text in found.left_out:
        console.print(Text(f"left out of your configuration: {text}", "dim"))
    console.print(
        Text(
            f"{reports.summary(found.results)}, {found.runtime} runtime, kernel {found.kernel},"
            f" in {found.duration_s:.1f} s"
        )
    )


def _console() -> Console:
    terminal = sys.stdout.isatty()
    return Console(
        highlight=False,
        width=None if terminal else PIPE_WIDTH_CHARACTERS,
        no_color=None if terminal else True,
    )
