"""`cloister trust`: show what changed in the project's cloister.toml, ask, and adopt it.

Rule 1: what is adopted is the text that was shown, not what the file holds by then.
Rule 2: a configuration with a fault is never adopted. Without a terminal, only `--yes` adopts.
"""

from __future__ import annotations

import argparse
import os
import sys

from cloister.cli.place import workspace_around
from cloister.config import directories, trust
from cloister.errors import CloisterError, ConfigurationError, UntrustedConfigurationError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")
    parser.add_argument("-y", "--yes", action="store_true", help="adopt without asking, once shown")


def execute(arguments: argparse.Namespace) -> int:
    home = directories.home(os.environ)
    project = directories.project(workspace_around(arguments.workspace), os.environ)
    current, adopted = trust.texts(project)
    if current is None and adopted is None:
        raise CloisterError(
            f"{project.workspace!r} has no cloister.toml, so there is nothing to trust",
            resolution="to write one, run: cloister init",
        )
    if current == adopted:
        sys.stdout.write(f"{project.file} is adopted already, and has not changed.\n")
        return 0
    if current is not None:
        _validate(project.file, current, home)
    sys.stdout.write(trust.difference(adopted, current) + "\n")
    if not (arguments.yes or _agreed(removal=current is None)):
        sys.stdout.write("Nothing was adopted.\n")
        return 1
    if current is None:
        trust.forget(project)
        sys.stdout.write("Forgotten: the project has no configuration of its own now.\n")
    else:
        trust.adopt(project, current)
        sys.stdout.write(f"Adopted {project.file}.\n")
    return 0


def _validate(path: str, text: str, home: str) -> None:
    """Raise what a run would raise. The user's own file is not this command's subject."""
    from cloister.config.compile import Overrides, compile_plan  # pydantic

    try:
        compile_plan(user=("", None), project=(path, text), overrides=Overrides(), home=home)
    except ConfigurationError as error:
        error.resolution = (
            f"{error.resolution}   Then run: cloister trust"
            if error.resolution
            else "correct it, then run: cloister trust"
        )
        raise


def _agreed(*, removal: bool) -> bool:
    if not sys.stdin.isatty():
        raise UntrustedConfigurationError(
            "nobody can be asked here: standard input is not a terminal",
            resolution="read the difference above; to adopt it, run: cloister trust --yes",
        )
    question = "Forget the adopted configuration?" if removal else "Adopt this?"
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
