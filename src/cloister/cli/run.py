"""`cloister run [OPTIONS] [--] COMMAND [ARGUMENT …]`."""

from __future__ import annotations

import os
from contextlib import suppress

from cloister.session.run import RunOptions, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def execute_plain(command: Sequence[str]) -> int:
    """The hot path: `cloister run -- COMMAND`, no options, no argparse."""
    return run(RunOptions(command=tuple(command)), os.environ, tell)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument(
        "-C", "--workspace", metavar="DIR", help="the workspace (default: the current project)"
    )
    parser.add_argument("--profile", metavar="NAME", help="offline, registries, agent or full")
    parser.add_argument(
        "--allow",
        metavar="HOST",
        action="append",
        default=[],
        help="allow one more host, for this run (repeatable)",
    )
    parser.add_argument(
        "-e", "--env", metavar="NAME[=VALUE]", action="append", default=[],
        help="set a variable in the sandbox, or pass the host's (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--unmask", metavar="GLOB", action="append", default=[], help="show a masked file of the workspace"
    )
    parser.add_argument("--memory", metavar="SIZE", help="memory limit, for example 4g")
    parser.add_argument("--cpus", metavar="N", type=float, help="CPU limit, for example 2")
    parser.add_argument("--pids", metavar="N", type=int, help="limit of processes and threads")
    parser.add_argument("command", nargs="...", metavar="[--] COMMAND", help="the command and its arguments")


def execute(arguments: argparse.Namespace) -> int:
    """Run with options; the configuration is compiled anew for them."""
    from cloister.cli.place import named
    from cloister.config.compile import Overrides

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    overrides = Overrides(
        profile=arguments.profile,
        allow=tuple(arguments.allow),
        environment=tuple(_variable(text) for text in arguments.env),
        unmask=tuple(arguments.unmask),
        memory=arguments.memory,
        cpus=arguments.cpus,
        pids=arguments.pids,
    )
    for name, value in overrides.environment:
        if value is None and name not in os.environ:
            tell(f"-e {name}: you have no such variable, so the sandbox does not get it")
    directory = None if arguments.workspace is None else named(arguments.workspace)
    changed = overrides != Overrides()
    options = RunOptions(
        command=tuple(command), directory=directory, overrides=overrides if changed else None
    )
    return run(options, os.environ, tell)


def tell(notice: str) -> None:
    """Print one notice of ours, beside the command's own output.

    Standard error may be full, closed, or made non-blocking by the sandbox, which shares it: nothing of that may
    disturb the session, nor stay in a buffer to fail at its end.
    """
    with suppress(OSError):
        os.write(2, f"cloister: {notice}\n".encode(errors="backslashreplace"))


def _variable(text: str) -> tuple[str, str | None]:
    name, separator, value = text.partition("=")
    return name, value if separator else None
