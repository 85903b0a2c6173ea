"""`cloister init`: write a commented starter cloister.toml into the project; never overwrite one."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from cloister.cli.place import workspace_around
from cloister.config import directories
from cloister.config.starter import found_languages, starter
from cloister.errors import CloisterError, HostError
from cloister.sandbox import workspace


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")


def execute(arguments: argparse.Namespace) -> int:
    home = directories.home(os.environ)
    root = workspace_around(arguments.workspace)
    workspace.check(root, home, os.environ)
    path = directories.project(root, os.environ).file
    languages = found_languages(os.listdir(root))
    with suppress(OSError):
        os.rmdir(path)  # while a sandbox lives, an empty directory keeps its agent from making the file
    try:
        # O_EXCL and not a check before: never overwrites, and follows no link that an agent left there.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise CloisterError(
            f"{path!r} exists already, and is left as it is",
            resolution="edit it, then run: cloister trust",
        ) from None
    except OSError as error:
        raise HostError(f"{path!r} cannot be written: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(starter(languages))
    found = f" (found: {', '.join(language.name for language in languages)})" if languages else ""
    sys.stdout.write(f"Wrote {path}{found}.\nRead and edit it, then run: cloister trust\n")
    return 0
