"""`cloister dev [PROJECT]`: the sandbox of a project, started if it does not run, and a terminal in it.

In the terminal is a tmux session, so that what runs there goes on when the terminal is closed; without tmux, a shell.
Each git work tree is a project of its own, with its own sandbox, home and ports.
"""

from __future__ import annotations

import argparse
import os
import sys

from cloister.cli import options
from cloister.cli.run import tell
from cloister.errors import UsageError
from cloister.session import attach

# tmux's own server lives in the sandbox, as long as that.
TMUX_SCRIPT = 'command -v tmux >/dev/null || exec "$SHELL" -l; exec tmux new-session -A -s cloister'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dev`."""
    parser.add_argument(
        "project", nargs="?", metavar="PROJECT", help="a directory (default: the project around you)"
    )
    parser.add_argument(
        "--worktree", metavar="NAME", help="in the git work tree of this name, which is made if there is none"
    )
    options.add_name(parser)
    options.add_overrides(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Start it or find it, then enter it; the exit code is that of the shell."""
    if arguments.project is not None and arguments.workspace is not None:
        raise UsageError("PROJECT and -C name the workspace twice", resolution="leave one of them out")
    directory = arguments.project if arguments.workspace is None else options.directory(arguments)
    if arguments.worktree is not None:
        from cloister.config import directories  # here and below: seldom
        from cloister.workspaces import worktrees

        home = directories.home(os.environ)
        directory = worktrees.make_or_use(directory or ".", arguments.worktree, home=home)
    started = options.started(arguments, project=directory)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    argv = ("/bin/sh", "-c", TMUX_SCRIPT) if terminal else attach.shell(started.record)
    code = attach.execute(started.record, attach.Command(argv=argv), os.environ)
    if terminal:
        stop = options.command_from_here("stop", started.project.workspace, started.record.name)
        tell(f"{started.record.name!r} runs on; end it with: {stop}")
    return code
