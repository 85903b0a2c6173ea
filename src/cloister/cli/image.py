"""`cloister image build|list|detect`: the container images for sandboxes, one per language on a common base.

Rule 1: the reference of what was built goes to standard output, alone; the progress to standard error.
"""

from __future__ import annotations

import argparse
import json
import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloister.audit.table import printable
from cloister.cli.image_progress import Display
from cloister.cli.place import workspace_around
from cloister.errors import UsageError
from cloister.images import build, choose, engine
from cloister.images.layer import load_layers
from cloister.images.render import DEFAULT_BASE, tag
from cloister.images.tools import checked_authority

PIPE_WIDTH_CHARACTERS = 160
_STYLES = {"yes": "green", "outdated": "yellow", "no": ""}
_AUTHORITY_LIMIT_CHARACTERS = 4 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Build and list the container images that sandboxes are started from."
    commands = parser.add_subparsers(dest="image_command", metavar="COMMAND", required=True)
    making = commands.add_parser("build", help="build an image, from Debian's packages")
    making.add_argument(
        "images", metavar="NAME", nargs="*", help="base, ts, python … (default: the project's language)"
    )
    making.add_argument(
        "--base",
        metavar="IMAGE",
        default=DEFAULT_BASE,
        help=f"a Debian or Ubuntu: an image, or a root file system's directory or tar (default: {DEFAULT_BASE})",
    )
    making.add_argument("--platform", metavar="OS/ARCH", default="", help="linux/amd64 or linux/arm64")
    making.add_argument(
        "--tool",
        metavar="NAME@VERSION",
        action="append",
        default=[],
        help="a tool of this version, through mise; may be repeated (default: the distribution's versions)",
    )
    making.add_argument(
        "--ca",
        metavar="FILE",
        default="",
        help="certificates that fetching a --tool trusts too; not in the image",
    )
    making.add_argument("--no-cache", action="store_true", help="build all of it again")
    making.add_argument(
        "--apt-mirror",
        metavar="URL",
        default="",
        help="install from this mirror; the image keeps its own sources",
    )
    making.add_argument(
        "--network",
        metavar="MODE",
        default="",
        help='"host": the build has the network of the engine\'s host',
    )
    listing = commands.add_parser("list", help="the images that there are, and which have been built")
    finding = commands.add_parser("detect", help="say which image suits the project around you, and why")
    for one in (making, listing):
        one.add_argument(
            "--runtime", metavar="NAME", help="docker or podman (default: the one that there is)"
        )
    for one in (making, listing, finding):
        one.add_argument(
            "-C", metavar="DIR", dest="directory", default=".", help="the project's directory (default: here)"
        )
    for one in (listing, finding):
        one.add_argument("--json", action="store_true", help="one JSON object, for programs")


def execute(arguments: argparse.Namespace) -> int:
    chosen = {"build": _build, "list": _list, "detect": _detect}
    return chosen[arguments.image_command](arguments)


def _build(arguments: argparse.Namespace) -> int:
    workspace = workspace_around(arguments.directory)
    wishes = [
        build.checked(_wish(name, arguments))
        for name in dict.fromkeys(arguments.images or [choose.detected(workspace).image])
    ]
    found = engine.find(arguments.runtime, os.environ, untrusted=[workspace])
    titles = {name: layer.title for name, layer in load_layers().items()}
    for wish in wishes:
        with Display(titles) as display:
            built = build.build(found, wish, display.hear)
        said = f"{'built' if built.fresh else 'already built'}: {built.alias}"
        Console(stderr=True, highlight=False).print(said, markup=False)
        print(built.reference, flush=True)
    return 0


def _wish(name: str, arguments: argparse.Namespace) -> build.Wish:
    return build.Wish(
        name=name,
        base=arguments.base,
        platform=arguments.platform,
        network=arguments.network,
        apt_mirror=arguments.apt_mirror,
        no_cache=arguments.no_cache,
        tools=tuple(arguments.tool),
        authority=_authority(arguments.ca),
    )


def _authority(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return checked_authority(path, file.read(_AUTHORITY_LIMIT_CHARACTERS))
    except OSError as error:
        raise UsageError(f"--ca: {path!r} cannot be read: {error.strerror}") from None


def _list(arguments: argparse.Namespace) -> int:
    workspace = workspace_around(arguments.directory)
    found = engine.find(arguments.runtime, os.environ, untrusted=[workspace])
    rows = [
        {
            "name": name,
            "title": layer.title,
            "reference": tag(name),
            "built": build.state(found, name).value,
        }
        for name, layer in load_layers().items()
    ]
    if arguments.json:
        print(json.dumps({"engine": found.name, "images": rows}, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "built", "what is in it"):
        table.add_column(column, no_wrap=column != "what is in it")
    for row in rows:
        table.add_row(Text(row["name"]), Text(row["built"], style=_STYLES[row["built"]]), Text(row["title"]))
    _console().print(table)
    return 0


def _detect(arguments: argparse.Namespace) -> int:
    found = choose.detected(workspace_around(arguments.directory))
    if arguments.json:
        said = {"image": found.image, "reasons": list(found.reasons), "versions": list(found.versions)}
        print(json.dumps(said, indent=2))
        return 0
    console = _console()
    console.print(found.image, style="bold", markup=False)
    for reason in found.reasons:
        console.print(f"  {printable(reason)}", markup=False)
    if found.versions:
        options = " ".join(f"--tool {version}" for version in found.versions)
        console.print(f"with these versions: cloister image build {found.image} {options}", markup=False)
    return 0


def _console() -> Console:
    terminal = os.isatty(1)
    return Console(highlight=False, width=None if terminal else PIPE_WIDTH_CHARACTERS)
