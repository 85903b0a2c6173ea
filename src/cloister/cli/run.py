"""`cloister run [OPTIONS] [--] COMMAND [ARGUMENT …]`."""

from __future__ import annotations

import os

from cloister.lean import suppress
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
    from cloister.cli import options  # here and below: off the hot path

    parser.add_argument(
        "-C", "--workspace", metavar="DIR", help="the workspace (default: the current project)"
    )
    options.add_overrides(parser)
    parser.add_argument("command", nargs="...", metavar="[--] COMMAND", help="the command and its arguments")


def execute(arguments: argparse.Namespace) -> int:
    """Run with options; the configuration is compiled anew for them."""
    from cloister.cli import options

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    return run(
        RunOptions(
            command=tuple(command),
            directory=options.directory(arguments),
            overrides=options.overrides(arguments),
        ),
        os.environ,
        tell,
    )


def tell(notice: str) -> None:
    """Print one notice of ours, beside the command's own output.

    Standard error may be full, closed, or made non-blocking by the sandbox, which shares it: nothing of that may
    disturb the session, nor stay in a buffer to fail at its end.
    """
    with suppress(OSError):
        os.write(2, f"cloister: {notice}\n".encode(errors="backslashreplace"))
