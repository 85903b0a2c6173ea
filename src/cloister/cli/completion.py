"""`cloister completion SHELL`: what a shell needs to complete cloister's command lines."""

from __future__ import annotations

import argparse
import sys

import shtab

from cloister import cli

SHELLS = {
    "bash": "~/.local/share/bash-completion/completions/cloister",
    "zsh": "a file _cloister in a directory of your $fpath",
    "tcsh": "~/.complete.tcsh, read by ~/.tcshrc",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `completion`."""
    parser.add_argument("shell", choices=list(SHELLS), metavar="SHELL", help=", ".join(SHELLS))
    parser.epilog = "Write it to " + "; ".join(f"{place} ({shell})" for shell, place in SHELLS.items()) + "."


def execute(arguments: argparse.Namespace) -> int:
    """Print it."""
    sys.stdout.write(shtab.complete(cli.parser(), arguments.shell) + "\n")
    return 0
