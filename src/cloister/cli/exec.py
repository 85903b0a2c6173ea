"""`cloister exec [OPTIONS] [--] COMMAND [ARGUMENT …]`: one more command in a sandbox that runs."""

from __future__ import annotations

import os

from cloister.errors import UsageError
from cloister.session import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def execute_plain(command: Sequence[str]) -> int:
    """The hot path: `cloister exec -- COMMAND`, no options, no argparse."""
    from cloister.cli import options

    return attach.execute(options.live(options.HERE), attach.Command(argv=tuple(command)), os.environ)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `exec`."""
    from cloister.cli import options

    options.add_name(parser)
    parser.add_argument(
        "-e", "--env", metavar="NAME[=VALUE]", action="append", default=[],
        help="set a variable for this command, or pass yours (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--env-from",
        metavar="FILE",
        help="set the variables in FILE, each NAME=VALUE and a NUL, as `env -0` prints them",
    )
    parser.add_argument(
        "-w",
        "--workdir",
        metavar="PATH",
        default="",
        help="where it starts, in the sandbox (default: as here)",
    )
    parser.add_argument("command", nargs="...", metavar="[--] COMMAND", help="the command and its arguments")


def execute(arguments: argparse.Namespace) -> int:
    """Run it; its exit code is the command's."""
    from cloister.cli import options

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise UsageError("a command is missing", resolution="for example: cloister exec -- make test")
    if arguments.workdir and not arguments.workdir.startswith("/"):
        raise UsageError(
            f"--workdir {arguments.workdir!r} is not an absolute path", resolution="name one, as in: -w /tmp"
        )
    chosen = {
        name: os.environ.get(name) if value is None else value
        for name, value in options.variables(arguments.env)
    }
    return attach.execute(
        options.live(options.Which.of(arguments)),
        attach.Command(
            argv=tuple(command),
            environment=(
                *_stored(arguments.env_from),
                *((name, value) for name, value in chosen.items() if value is not None),
            ),
            directory=arguments.workdir,
        ),
        os.environ,
    )


def _stored(path: str | None) -> list[tuple[str, str]]:
    """What `--env-from` names: the way for values that no argument should show. `/proc/PID/fd/N` will do."""
    if path is None:
        return []
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        pairs = [text.partition("=") for text in file.read().split("\0") if text]
    wrong = next((name for name, separator, _ in pairs if not (name and separator)), None)
    if wrong is not None:
        raise UsageError(
            f"--env-from {path!r}: {wrong[:80]!r} is not NAME=VALUE",
            resolution="write it as `env -0` prints: NAME=VALUE, each followed by a NUL",
        )
    return [(name, value) for name, _, value in pairs]
